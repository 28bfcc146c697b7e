/*
 * Loaded into a router whose memory is measured (node --expose-gc --import): at SIGUSR2 it collects all garbage, so that what
 * is left is what it holds.
 */
process.on('SIGUSR2', () => {
  globalThis.gc?.()
  process.stderr.write('collected\n')
})
