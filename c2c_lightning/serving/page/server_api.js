/** Requests to the server that this page comes from. */

import { eventData } from "./event_data.js";

const KEY = "c2c_api_key";

/** The API key: in sessionStorage only, which the browser drops with the tab. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY),
  set: (key) => sessionStorage.setItem(KEY, key),
  forget: () => sessionStorage.removeItem(KEY),
};

/** A refusal of the server, or a failure to reach it (status 0). */
export class ServerError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** The served models, as `/v1/models` lists them. */
export async function servedModels() {
  const response = await request("v1/models", {});
  return (await response.json()).data;
}

/** The chunks of a streamed answer; they end with [DONE], or by a ServerError. */
export async function* answerChunks(body, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  for await (const data of reachable(eventData(response))) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(chunk.error.message, response.status);
    yield chunk;
  }
  throw new ServerError("The connection ended before the answer did.");
}

async function request(path, options) {
  const key = apiKey.get();
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await explained(() => fetch(path, { ...options, headers }));
  if (!response.ok) throw new ServerError(await refusalText(response), response.status);
  return response;
}

async function* reachable(events) {
  for (;;) {
    const { value, done } = await explained(() => events.next());
    if (done) return;
    yield value;
  }
}

/** The browser's own network errors say nothing of use; a stop by the user stays an AbortError. */
async function explained(call) {
  try {
    return await call();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached.");
  }
}

async function refusalText(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}
