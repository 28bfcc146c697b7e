import { readFileSync } from 'node:fs'
import { readModelConfig, type ModelConfig } from '../../src/sizing/model-config.ts'

const folder = new URL('../fixtures/sizing/', import.meta.url)

export function fixture(name: string): string {
  return readFileSync(new URL(name, folder), 'utf8')
}

/** The value of a published config.json. */
export function rawModel(name: string): Record<string, unknown> {
  return JSON.parse(fixture(`models/${name}.json`)) as Record<string, unknown>
}

export function model(name: string, changes: Record<string, unknown> = {}): ModelConfig {
  return readModelConfig({ ...rawModel(name), ...changes })
}

/** What vLLM 0.32 and transformers made of the models. */
export interface Recording {
  readonly parameters: Readonly<Record<string, number>>
  readonly layouts: readonly {
    readonly model: string
    readonly dtype: 'auto' | 'fp8' | 'fp8_ds_mla'
    readonly tensor: number
    readonly pipeline: number
    readonly decodeContext: number
    readonly blockTokens: number
    readonly maxTokens: number
    readonly inFlightTokens: number
    readonly memoryBytes: number
    readonly groups: readonly { readonly blockTokens: number; readonly specs: number; readonly groups: number }[]
    readonly blocks: number
    readonly concurrency: number
    readonly tokens: number
  }[]
}

export const recording = JSON.parse(fixture('vllm-0.32-layouts.json')) as Recording
