import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { demoTokenizer } from '../support/fleet.ts'
import { folder, installPython } from './install.ts'

/** What a load generator measured. */
export interface Measured {
  readonly requests: number
  readonly errors: number
  /** Time to first token. */
  readonly ttftP50Ms: number
  readonly ttftP99Ms: number
  /** Time from one token to the next. */
  readonly itlP50Ms: number
}

export interface LoadGenerator {
  readonly name: string
  measure(url: string, name: string): Promise<Measured>
}

export const loadModel = 'fake-model'
const deadlineMs = 300_000

export function aiperf(): LoadGenerator {
  const bin = join(installPython('aiperf'), 'aiperf')
  return {
    name: 'aiperf 0.13.0',
    async measure(url, name) {
      const out = fresh(`aiperf-${name}`)
      await command(bin, out, [
        ...['profile', '-m', loadModel, '-u', url, '--endpoint-type', 'chat', '--streaming'],
        ...['--tokenizer', demoTokenizer, '--isl', '200', '--osl', '32', '--random-seed', '7'],
        ...['--concurrency', '8', '--warmup-request-count', '40', '--request-count', '200'],
        ...['--use-server-token-count', '--no-server-metrics', '--ui', 'none', '--output-artifact-dir', out],
        // As few processes as may be: they take their time from what is measured.
        ...['--workers-max', '1', '--record-processors', '1'],
      ])
      const told = readJson(join(out, 'profile_export_aiperf.json')) as AiperfReport
      return {
        requests: told.request_count.avg,
        errors: told.error_request_count?.avg ?? 0,
        ttftP50Ms: told.time_to_first_token.p50,
        ttftP99Ms: told.time_to_first_token.p99,
        itlP50Ms: told.inter_token_latency.p50,
      }
    },
  }
}

interface AiperfReport {
  readonly request_count: { readonly avg: number }
  readonly error_request_count?: { readonly avg: number }
  readonly time_to_first_token: { readonly p50: number; readonly p99: number }
  readonly inter_token_latency: { readonly p50: number }
}

export function inferencePerf(): LoadGenerator {
  const bin = join(installPython('inference-perf'), 'inference-perf')
  return {
    name: 'inference-perf 0.7.0',
    async measure(url, name) {
      const out = fresh(`inference-perf-${name}`)
      const config = join(out, 'config.json')
      // YAML holds JSON.
      writeFileSync(config, JSON.stringify(inferencePerfConfig(url, out), null, 2))
      await command(bin, out, ['--config_file', config])
      const told = readJson(join(out, 'summary_lifecycle_metrics.json')) as InferencePerfReport
      const { time_to_first_token: first, inter_token_latency: next } = told.successes.latency
      return {
        requests: told.successes.count,
        errors: told.failures.count,
        ttftP50Ms: first.median * 1000,
        ttftP99Ms: first.p99 * 1000,
        itlP50Ms: next.median * 1000,
      }
    },
  }
}

interface InferencePerfReport {
  readonly successes: {
    readonly count: number
    readonly latency: {
      readonly time_to_first_token: { readonly median: number; readonly p99: number }
      readonly inter_token_latency: { readonly median: number }
    }
  }
  readonly failures: { readonly count: number }
}

function inferencePerfConfig(url: string, out: string): object {
  return {
    api: { type: 'chat', streaming: true },
    server: { type: 'vllm', model_name: loadModel, base_url: url, ignore_eos: true },
    tokenizer: { pretrained_model_name_or_path: demoTokenizer },
    data: {
      type: 'shared_prefix',
      shared_prefix: {
        num_unique_system_prompts: 4,
        num_users_per_system_prompt: 5,
        system_prompt_len: 200,
        question_len: 30,
        output_len: 16,
      },
    },
    load: {
      type: 'constant',
      interval: 1,
      stages: [{ rate: 10, duration: 10 }],
      num_workers: 1,
      worker_max_concurrency: 8,
    },
    storage: { local_storage: { path: out } },
  }
}

function fresh(name: string): string {
  const out = join(folder, 'runs', name)
  rmSync(out, { recursive: true, force: true })
  mkdirSync(out, { recursive: true })
  return out
}

/** Runs a tool to its end; what it says goes to `log.txt` in its folder. */
async function command(bin: string, out: string, args: readonly string[]): Promise<void> {
  const log = join(out, 'log.txt')
  const output = openSync(log, 'w')
  // With this set aiperf refuses a tokenizer in a folder.
  const env = { ...process.env, HF_HUB_OFFLINE: undefined }
  const child = spawn(bin, args, { stdio: ['ignore', output, output], env, timeout: deadlineMs })
  closeSync(output)
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`${bin} ended with ${code}; see ${log}`)
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'))
}
