import type { RunOptions } from './dynamo-run.ts'

export interface DynamoCase {
  readonly name: string
  /** Of all states. */
  readonly share: number
  /** Parameters of the scorer, by Dynamo's names. */
  readonly parameters: Readonly<Record<string, number | boolean>>
  /** The same for the service. */
  readonly environment: Readonly<Record<string, string>>
  readonly run: Omit<RunOptions, 'seed'>
}

const usual = { workers: 8, blockSize: 16, room: { gpu: 500, host: 400, disk: 400 }, drops: false }

export const dynamoCases: readonly DynamoCase[] = [
  { name: 'as it comes', share: 0.4, parameters: {}, environment: {}, run: usual },
  {
    name: 'other weights',
    share: 0.2,
    parameters: {
      overlap_score_credit: 0.8,
      overlap_score_credit_decay: 1.5,
      prefill_load_scale: 2.5,
      decode_active_request_weight: 3,
      host_cache_hit_weight: 0.6,
      disk_cache_hit_weight: 0.1,
    },
    environment: {
      DYN_ROUTER_KV_OVERLAP_SCORE_CREDIT: '0.8',
      DYN_ROUTER_KV_OVERLAP_SCORE_CREDIT_DECAY: '1.5',
      DYN_ROUTER_PREFILL_LOAD_SCALE: '2.5',
      DYN_ROUTER_DECODE_ACTIVE_REQUEST_WEIGHT: '3',
      DYN_ROUTER_HOST_CACHE_HIT_WEIGHT: '0.6',
      DYN_ROUTER_DISK_CACHE_HIT_WEIGHT: '0.1',
    },
    run: usual,
  },
  {
    name: 'no reuse assumed',
    share: 0.1,
    parameters: { router_assume_kv_reuse: false },
    environment: { DYN_ROUTER_ASSUME_KV_REUSE: 'false' },
    run: usual,
  },
  {
    name: 'prefill not tracked',
    share: 0.1,
    parameters: { router_track_prefill_tokens: false },
    environment: { DYN_ROUTER_TRACK_PREFILL_TOKENS: 'false' },
    run: usual,
  },
  {
    name: '32 workers, blocks of 64',
    share: 0.1,
    parameters: {},
    environment: {},
    run: { workers: 32, blockSize: 64, room: { gpu: 200, host: 0, disk: 0 }, drops: false },
  },
  { name: 'blocks that vanish', share: 0.1, parameters: {}, environment: {}, run: { ...usual, drops: true } },
]

/** At this temperature frequencies are compared, since single choices are random. */
export const temperature = 0.4
export const temperatureCase: DynamoCase = {
  name: 'temperature',
  share: 0,
  parameters: {},
  environment: { DYN_ROUTER_TEMPERATURE: String(temperature) },
  run: usual,
}
