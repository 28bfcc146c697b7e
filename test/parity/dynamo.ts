import { installDynamo } from '../engines/mocker.ts'
import type { ParitySuite } from './suite.ts'

/** The profile `dynamo` before NVIDIA Dynamo's select service. */
export const dynamoParity: ParitySuite = async (report) => {
  installDynamo((line) => report.say(line))
  await Promise.resolve()
}
