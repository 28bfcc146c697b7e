import { createProfile, type ProfileChoice } from '../../../src/routing/catalogue.ts'
import type { Dispatch } from '../../../src/routing/policy.ts'
import { InFlightCounters } from '../../../src/workers/fleet.ts'
import type { Worker } from '../../../src/workers/worker.ts'
import { aRequest, aWorker, candidatesOf } from '../../support/routing.ts'
import type { SglangCase } from './cases.ts'
import type { LogStep } from './request-log.ts'

type OwnCase = Pick<SglangCase, 'ours' | 'workers' | 'steps' | 'countStarts'>

const intervalMs = 60_000
const capacityBlocks = 1_000_000

export interface OwnOptions {
  readonly random?: () => number
  /** What each engine says that it holds in its KV cache. */
  readonly heldTokens?: readonly number[]
}

/**
 * What a profile of ours chooses for the same log: places among the workers. Prompts come to it as units of one character,
 * so that matches are as long as in a tree over characters.
 */
export function ownChoices(
  choice: string | ProfileChoice,
  workerCount: number,
  steps: readonly LogStep[],
  { random = () => 0, heldTokens = [] }: OwnOptions = {},
): number[] {
  let nowMs = 0
  const faults: unknown[] = []
  const profile = createProfile(choice, {
    context: { clock: () => nowMs, random },
    workers: 64,
    fault: (_plugin, error) => faults.push(error),
    limits: { stallMs: Infinity, faults: 1, pauseMs: 0 },
  })
  const workers = Array.from({ length: workerCount }, (_, index) => ownWorker(index, heldTokens[index]))
  const counters = new InFlightCounters(64)
  const at = new Map<string, Dispatch>()
  const chosen: number[] = []
  for (const step of steps) {
    if (step.kind === 'evict') nowMs += intervalMs
    else if (step.kind === 'finish') {
      const dispatch = at.get(step.name)
      if (dispatch === undefined) throw new Error(`${step.name} was not sent`)
      counters.add(dispatch.serial, -1, 0, 0)
      profile.finished(dispatch)
    } else {
      const keys = characterKeys(step.prompt)
      const { headers = {} } = step
      const candidates = candidatesOf(workers, counters, [], keys.length / 2)
      const request = aRequest({
        promptTokens: keys.length / 2,
        keys: () => keys,
        header: (name) => headers[name] ?? null,
      })
      const place = profile.choose(request, candidates, candidates)
      counters.add(place, 1, 0, 0)
      const dispatch: Dispatch = {
        serial: place,
        promptTokens: keys.length / 2,
        uncachedTokens: 0,
        prefillTokensAhead: 0,
        requestsAhead: 0,
        stream: false,
        atMs: nowMs,
        keys,
        adapter: null,
        session: null,
        maxTokens: null,
      }
      profile.dispatched(dispatch)
      at.set(step.name, dispatch)
      chosen.push(place)
    }
  }
  if (faults.length > 0) throw new Error(`the profile failed: ${String(faults[0])}`)
  return chosen
}

function ownWorker(index: number, tokens: number | undefined): Worker {
  const load = { running: 0, waiting: 0, source: 'poll', atMs: 0, foreignRequests: 0, foreignWaiting: 0 } as const
  return aWorker(index, {
    blockSize: 1,
    capacityBlocks,
    ...(tokens === undefined ? {} : { load: { ...load, kvUsage: tokens / capacityBlocks } }),
  })
}

/** What ours chooses; of several ways to begin, the one that agrees longest. */
export function nearestChoices(one: OwnCase, theirs: readonly number[]): number[] {
  const { countStarts = 1 } = one
  let nearest: number[] = []
  let longest = -1
  for (let start = 0; start < countStarts; start++) {
    const ours = ownChoices(one.ours, one.workers, one.steps, { random: () => start / countStarts })
    const first = firstDifference(theirs, ours)
    const agreed = first === -1 ? theirs.length : first
    if (agreed > longest) {
      longest = agreed
      nearest = ours
    }
  }
  return nearest
}

/** −1 where there is none. */
export function firstDifference(theirs: readonly number[], ours: readonly number[]): number {
  return theirs.findIndex((place, index) => place !== ours[index])
}

/** A prompt as one unit a character. */
function characterKeys(prompt: string): Uint32Array {
  const characters = Array.from(prompt)
  const keys = new Uint32Array(2 * characters.length)
  for (const [index, character] of characters.entries()) keys[2 * index] = character.codePointAt(0) ?? 0
  return keys
}
