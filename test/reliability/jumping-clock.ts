/** Loaded into a router, moves its wall clock at SIGUSR2, as `date --set` on its machine would: timers are not asked. */
const hourMs = 3_600_000
const now = Date.now.bind(Date)
let offsetMs = 0

Date.now = () => now() + offsetMs
process.on('SIGUSR2', () => {
  offsetMs = offsetMs > 0 ? -hourMs : hourMs
  console.error(`clock jumped by ${offsetMs} ms`)
})
