"""What OpenAI's library for Python makes of the cases on standard input; see openai-probe.ts, which does the same."""

import asyncio
import json
import sys
import time

from openai import AsyncOpenAI

MESSAGES = [{"role": "user", "content": "Hi"}]


class Read:
    text = ""
    request_id = None


async def chat(client, model, headers, read, leaves):
    answer = await client.chat.completions.create(model=model, messages=MESSAGES, extra_headers=headers)
    read.text = answer.choices[0].message.content
    read.request_id = answer._request_id


async def chat_stream(client, model, headers, read, leaves):
    stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True, extra_headers=headers)
    async with stream:
        async for chunk in stream:
            read.text += chunk.choices[0].delta.content or ""
            if leaves:
                break


async def completion_stream(client, model, headers, read, leaves):
    stream = await client.completions.create(model=model, prompt="Hi", stream=True, extra_headers=headers)
    async for chunk in stream:
        read.text += chunk.choices[0].text


async def responses(client, model, headers, read, leaves):
    answer = await client.responses.create(model=model, input="Hi", extra_headers=headers)
    read.text = answer.output_text
    read.request_id = answer._request_id


async def responses_stream(client, model, headers, read, leaves):
    stream = await client.responses.create(model=model, input="Hi", stream=True, extra_headers=headers)
    async for event in stream:
        if event.type == "response.output_text.delta":
            read.text += event.delta


async def image(client, model, headers, read, leaves):
    await client.images.generate(model=model, prompt="Hi", extra_headers=headers)


APIS = {
    "chat": chat,
    "chatStream": chat_stream,
    "completionStream": completion_stream,
    "responses": responses,
    "responsesStream": responses_stream,
    "image": image,
}


def failure(error):
    code = getattr(error, "code", None)
    return {
        "kind": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "message": str(error),
        "type": getattr(error, "type", None),
        "code": None if code is None else str(code),
        "param": getattr(error, "param", None),
        "requestId": getattr(error, "request_id", None),
    }


async def probe(client, request):
    started = time.perf_counter()
    read = Read()
    error = None
    headers = {"x-case": request["id"], "x-request-id": request["id"]}
    if request["timeoutMs"] is not None:
        client = client.with_options(timeout=request["timeoutMs"] / 1000)
    try:
        await APIS[request["api"]](client, request["model"], headers, read, request["leaves"])
    except Exception as thrown:  # Whatever a client raises is what the case is about.
        error = failure(thrown)
    duration_ms = (time.perf_counter() - started) * 1000
    return {"error": error, "text": read.text, "requestId": read.request_id, "durationMs": duration_ms}


async def main():
    asked = json.load(sys.stdin)
    client = AsyncOpenAI(base_url=asked["baseURL"], api_key="any")
    outcomes = await asyncio.gather(*(probe(client, request) for request in asked["requests"]))
    json.dump(outcomes, sys.stdout)


asyncio.run(main())
