/** An engine that answers at once: what is measured in front of it is the proxy alone. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

const answer = JSON.stringify({
  id: 'cmpl-1',
  object: 'text_completion',
  created: 1,
  model: 'model',
  choices: [{ index: 0, text: ' one two three four', logprobs: null, finish_reason: 'length' }],
  usage: { prompt_tokens: 64, total_tokens: 68, completion_tokens: 4, prompt_tokens_details: { cached_tokens: 0 } },
})
const models = JSON.stringify({ object: 'list', data: [{ id: 'model', parent: null, max_model_len: 8192 }] })

const server = createServer((request, response) => {
  request.resume()
  request.on('end', () => {
    const body = request.url === '/v1/models' ? models : request.url === '/v1/completions' ? answer : '{}'
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
    response.end(body)
  })
})
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
