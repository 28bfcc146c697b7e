import { blockSize, type Engine } from './engine.ts'
import type { Lab, SentChat } from './lab.ts'
import { text } from '../engines/texts.ts'

export interface Message {
  readonly role: string
  readonly content: string
}

export interface User {
  readonly name: string
  readonly messages: Message[]
  /** Where the last turn went. */
  engine: Engine | null
}

const turns = 6
const usersPerTenant = 2

/** The router has found out by itself what it was not told. */
export async function discovery({ report, router, engines }: Lab): Promise<void> {
  report.section('What the router found out')
  for (const engine of engines) {
    const worker = await router.workerOnce(
      engine.url,
      ({ state, events }) => state === 'healthy' && events.state === 'live',
      30_000,
    )
    if (!report.check(`${engine.name} is healthy and its events are live`, worker !== null) || worker === null) continue
    report.equal(
      `${engine.name}: pool, engine, block size`,
      [worker.pool, worker.engine, worker.blockSize],
      ['model', 'vllm', blockSize],
    )
    report.equal(`${engine.name}: KV blocks`, worker.capacityBlocks, await engine.kvBlocks())
    report.check(
      `${engine.name}: tokenizes as the router does`,
      worker.degraded === undefined,
      worker.degraded ?? 'not degraded',
    )
  }
}

/** Tenants with a system prompt each, users with a conversation each, streamed and not, turn by turn. */
export async function conversations(lab: Lab): Promise<User[]> {
  const { report } = lab
  report.section(`${2 * usersPerTenant} users, ${turns} turns, two system prompts`)
  const users: User[] = []
  for (let tenant = 0; tenant < 2; tenant++) {
    for (let user = 0; user < usersPerTenant; user++) {
      users.push(newUser('AB'[tenant] ?? '', user + 1, 500))
    }
  }
  // Both tenants arrive at the same moment: the second finds the first one's prefill on one engine, and the other idle.
  const first = [users[0], users[usersPerTenant]].filter((user) => user !== undefined)
  const bodies = first.map((user) => nextTurn(user, 0))
  const answers = await Promise.all(bodies.map((body) => lab.post(body)))
  for (const [at, answer] of answers.entries()) {
    await lab.verify(`${first[at]?.name} turn 1`, bodies[at] ?? {}, answer)
    answered(first[at], answer)
  }
  report.equal('tenants that arrive together get an engine each', new Set(answers.map(({ engine }) => engine)).size, 2)
  for (let turn = 0; turn < turns; turn++) {
    for (const user of users) if (turn > 0 || !first.includes(user)) await takeTurn(lab, user)
  }
  return users
}

/** One turn of a conversation, with all checks. */
export async function takeTurn(lab: Lab, user: User, expected?: 'lost unnoticed'): Promise<Engine> {
  const turn = turnsOf(user)
  const body = nextTurn(user, turn)
  const title = `${user.name} turn ${turn + 1}${body['stream'] === true ? ', streamed' : ''}`
  const sent = await lab.send(title, body, expected)
  answered(user, sent)
  return sent.engine
}

/** @param tenant letter; users of one tenant share their system prompt */
export function newUser(tenant: string, number: number, systemWords: number): User {
  const content = text(tenant.charCodeAt(0), systemWords)
  return { name: `user ${tenant}${number}`, messages: [{ role: 'system', content }], engine: null }
}

function turnsOf(user: User): number {
  return user.messages.filter(({ role }) => role === 'user').length
}

function answered(user: User | undefined, { content, engine }: SentChat): void {
  if (user === undefined) return
  user.messages.push({ role: 'assistant', content })
  user.engine = engine
}

function nextTurn(user: User, turn: number): Record<string, unknown> {
  const seed = 100 * (turn + 1) + (user.name.codePointAt(5) ?? 0) * 1000 + Number(user.name.at(-1))
  user.messages.push({ role: 'user', content: text(seed, 20 + 15 * turn) })
  return {
    messages: [...user.messages],
    max_tokens: 40,
    seed,
    // Greedy answers of random weights are one token over and over; sampled ones are of all scripts, and seldom come
    // back from text as the ids that were generated.
    temperature: turn % 3 === 2 ? 1 : 0,
    stream: (turn + Number(user.name.at(-1))) % 2 === 0,
  }
}

/** All users at once: requests meet on the engines, and events are in flight while others are decided. */
export async function together(lab: Lab, users: readonly User[]): Promise<void> {
  lab.report.section('All users at once')
  const bodies = users.map((user) => nextTurn(user, turnsOf(user)))
  const answers = await Promise.all(bodies.map((body) => lab.post(body)))
  for (const [at, answer] of answers.entries()) {
    await lab.verify(`${users[at]?.name} beside the others`, bodies[at] ?? {}, answer)
    answered(users[at], answer)
  }
}
