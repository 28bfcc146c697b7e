import { redisCommandsContract } from '../contract/redis-commands.ts'
import { MemoryRedis } from '../support/memory-redis.ts'
import { linkFor } from '../support/redis-link.ts'
import { startRedis } from '../support/redis-server.ts'

redisCommandsContract('in memory', () => Promise.resolve({ commands: new MemoryRedis(), prefix: '' }))

redisCommandsContract('Redis', async (t) => {
  const { link, isUp } = linkFor(t, { url: (await startRedis(t)).url })
  await isUp()
  return { commands: link.commands, prefix: link.key('') }
})
