// The import table of docs/architecture.md as rules: a room may import what its row lists, nothing else.
// Everyone may import src/errors.ts, src/faults.ts and src/telemetry/. `test/tidy/imports.test.ts` shows each rule failing once.

/** room (regular expression under src/) -> what it may import (regular expressions under src/) */
const table = {
  'errors\\.ts$': [],
  'faults\\.ts$': [],
  'telemetry/': [],
  'kv/': [],
  'zmtp/': [],
  'config/': [],
  'tokenize/': [],
  'sizing/': [],
  'plot/': [],
  'workers/': [],
  'admission/': [],
  'map/': ['kv/'],
  'events/': ['kv/', 'map/', 'zmtp/'],
  'routing/(?!(filters|fallbacks|scorers|pickers)/)': ['kv/', 'workers/', 'routing/'],
  'routing/(filters|fallbacks|scorers|pickers)/': ['routing/policy\\.ts$', 'routing/hash\\.ts$', 'routing/learned/'],
  'routing/learned/': ['routing/policy\\.ts$'],
  'routing/sglang/': ['routing/policy\\.ts$'],
  'routing/llm-d/': ['routing/(policy|parameters)\\.ts$'],
  'routing/dynamo/': ['routing/policy\\.ts$', 'kv/keys\\.ts$'],
  'truth/': ['kv/', 'map/', 'workers/'],
  'protocol/': [],
  'proxy/': ['workers/', 'protocol/'],
  'replication/': ['kv/', 'map/', 'workers/', 'routing/policy\\.ts$'],
  'pipeline(\\.ts$|/)': [
    'pipeline/',
    'protocol/',
    'tokenize/',
    'kv/',
    'map/',
    'routing/',
    'proxy/',
    'workers/',
    'admission/',
    'truth/',
  ],
  'http/': ['pipeline(\\.ts$|/model-target\\.ts$)', 'protocol/', 'tokenize/', 'kv/', 'workers/', 'admission/'],
  'simulator/': ['kv/', 'tokenize/', 'zmtp/'],
  'gateway/': ['kv/'],
  'replay/': [
    'config/defaults\\.ts$',
    'kv/',
    'map/',
    'events/',
    'routing/',
    'workers/',
    'replication/',
    'simulator/',
    'sizing/',
    'plot/',
  ],
  '(cli\\.ts$|commands/)': [
    'commands/',
    'main\\.ts$',
    'config/',
    'simulator/',
    'replay/',
    'sizing/',
    'plot/',
    'gateway/',
    'admission/',
  ],
  'index\\.ts$': ['routing/policy\\.ts$', 'sizing/'],
}

const everyone = ['errors\\.ts$', 'faults\\.ts$', 'telemetry/']

/** Only these rooms may use these packages: one library, one door. */
const doors = [
  { name: 'fastify', path: 'node_modules/fastify/', rooms: '^src/(http|simulator|main)/|^src/main\\.ts$' },
  { name: 'undici', path: 'node_modules/undici/', rooms: '^src/(proxy|workers)/' },
  { name: 'ioredis', path: 'node_modules/ioredis/', rooms: '^src/(replication|gateway)/' },
  { name: 'tokenizers', path: 'node_modules/(tokenizers|@huggingface/jinja)/', rooms: '^src/tokenize/' },
  { name: 'prom-client', path: 'node_modules/prom-client/', rooms: '^src/telemetry/' },
  { name: 'pino', path: 'node_modules/pino/', rooms: '^src/telemetry/' },
  { name: 'd3', path: 'node_modules/d3-', rooms: '^src/plot/' },
  { name: 'yaml', path: 'node_modules/yaml/', rooms: '^src/config/' },
]

module.exports = {
  forbidden: [
    ...Object.entries(table).map(([room, may]) => ({
      name: `room ${room}`,
      severity: 'error',
      from: { path: `^src/${room}` },
      to: {
        path: '^src/',
        pathNot: [...may, ...everyone]
          .map((target) => `^src/${target}`)
          .concat(room.endsWith('/') && !room.includes('(') ? [`^src/${room}`] : []),
      },
    })),
    ...doors.map((door) => ({
      name: `door ${door.name}`,
      severity: 'error',
      from: { path: '^src/', pathNot: door.rooms },
      to: { path: door.path },
    })),
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'no-orphans',
      severity: 'error',
      from: { orphan: true, path: '^src/', pathNot: ['\\.thread\\.ts$'] },
      to: {},
    },
    {
      name: 'not-to-dev-dep',
      severity: 'error',
      from: { path: '^src/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg'] },
    },
    { name: 'not-to-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
      extensions: ['.ts', '.js', '.json'],
    },
  },
}
