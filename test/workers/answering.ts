import type { EngineAnswer, EngineHttp } from '../../src/workers/engine-http.ts'

/**
 * Answers each path with its text, a number as that status, null as no answer in time; all other paths are not found.
 * `asked` collects the paths.
 */
export function answering(answers: Readonly<Record<string, unknown>>, asked: string[] = []): EngineHttp {
  return {
    ask(url): Promise<EngineAnswer | null> {
      const { pathname } = new URL(url)
      asked.push(pathname)
      const answer = answers[pathname]
      if (answer === null) return Promise.resolve(null)
      if (answer === undefined || typeof answer === 'number')
        return Promise.resolve({ status: answer ?? 404, text: '{}' })
      return Promise.resolve({ status: 200, text: typeof answer === 'string' ? answer : JSON.stringify(answer) })
    },
    close: () => Promise.resolve(),
  }
}

export function models(owner: string): object {
  return {
    object: 'list',
    data: [{ id: 'model', object: 'model', owned_by: owner, parent: null, max_model_len: 4096 }],
  }
}
