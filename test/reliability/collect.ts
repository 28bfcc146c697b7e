/*
 * Loaded into a router whose memory is measured (node --expose-gc --import): at SIGUSR2 it collects all garbage, so that what
 * is left is what it holds.
 */
process.on('SIGUSR2', () => {
  globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' })
  process.stderr.write('collected\n')
})
