import { FlatMap } from '../../src/map/flat-map.ts'
import { cacheMapContract } from '../contract/cache-map.ts'
import { NaiveMap } from '../support/naive-map.ts'

cacheMapContract('naive map', (options) => new NaiveMap(options))
cacheMapContract('flat map', (options) => new FlatMap({ budgetBytes: 1024 * 1024, maxWorkers: 8, ...options }))
