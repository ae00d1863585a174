/** One of the three answers: streams it, shows its numbers, stops it. */

import { byId, element, showText } from "./dom.js";
import { answerChunks } from "./server_api.js";
import { bytes, seconds, utf8Length } from "./units.js";

const TICK_MS = 100;
const ENDED_BY = { time_limit: "Ended by the server's time limit.", shutdown: "Ended because the server is stopping." };

export class AnswerColumn {
  /**
   * @param {HTMLElement} root the empty article.
   * @param {{title: string, absent: string, answering?: string}} texts
   * @param {(column: AnswerColumn) => void} onChange called when the column begins or ends to run.
   */
  constructor(root, texts, onChange) {
    root.append(byId("column").content.cloneNode(true));
    this.root = root;
    this.texts = texts;
    this.onChange = onChange;
    this.parts = Object.fromEntries(
      ["title", "model", "stop", "state", "answer", "verdict", "failure", "notes", "first", "total", "count", "bytes"].map(
        (name) => [name, root.querySelector(`.${name}`)],
      ),
    );
    this.parts.title.textContent = texts.title;
    this.parts.title.id = `${root.dataset.column}-title`;
    root.setAttribute("aria-labelledby", this.parts.title.id);
    this.parts.stop.setAttribute("aria-label", `Stop: ${texts.title}`);
    this.parts.stop.addEventListener("click", () => this.stop());
    this.running = null;
  }

  get isRunning() {
    return this.running !== null;
  }

  get text() {
    return this.parts.answer.textContent;
  }

  /** Name the model that answers; null where the server does not have it. */
  setModel(model) {
    this.stop();
    this.model = model;
    this.#clear();
    this.parts.model.textContent = model ? model.id : "";
    this.#state(model ? "ready" : "absent", model ? "Ready" : this.texts.absent);
  }

  stop() {
    this.running?.abort();
  }

  /**
   * Stream an answer; the one before is stopped.
   * @returns {Promise<object | null>} the server's report `c2c`, or null where the answer has failed or was stopped.
   */
  async ask(body, expected, notes = []) {
    if (!this.model) return null;
    this.stop();
    const running = (this.running = new AbortController());
    this.#clear();
    this.#state("waiting", "Waiting");
    this.parts.notes.append(...notes);
    this.parts.stop.disabled = false;
    this.onChange(this);
    const timer = this.#clock();
    try {
      return this.#end(await this.#stream({ ...body, model: this.model.id }, running), expected);
    } catch (error) {
      return running === this.running ? this.#fail(error) : null;
    } finally {
      clearInterval(timer);
      if (running === this.running) this.#rest();
    }
  }

  async #stream(body, running) {
    let report = {};
    let reason = null;
    for await (const chunk of answerChunks(body, running.signal)) {
      // A chunk of a stopped answer may still be in the queue.
      if (running.signal.aborted) throw new DOMException("stopped", "AbortError");
      const [choice] = chunk.choices;
      if (!choice) continue;
      if (choice.c2c?.message_delta) this.#message(choice.c2c.message_delta);
      if (choice.delta?.content) this.#answer(choice.delta.content);
      if (choice.finish_reason) [report, reason] = [choice.c2c ?? {}, choice.finish_reason];
    }
    return { ...report, reason };
  }

  #answer(text) {
    if (this.firstToken === undefined) {
      this.firstToken = (performance.now() - this.start) / 1000;
      this.parts.first.textContent = seconds(this.firstToken);
      this.#state("answering", "Answering");
    }
    this.parts.answer.textContent += text;
  }

  #message(text) {
    if (!this.message) {
      this.#state("message", "Sharer writes its message");
      this.message = this.note("Message of the sharer", "");
    }
    this.message.textContent += text;
  }

  /** Add a labelled text below the answer; returns the element of the text. */
  note(label, text) {
    const note = element("div", "note");
    const body = element("p", "", text);
    note.append(element("h3", "", label), body);
    this.parts.notes.append(note);
    return body;
  }

  #end(report, expected) {
    if (report.message !== undefined && !this.message) this.#message(report.message || "(empty)");
    this.#numbers(report);
    if (report.donor) this.note("Cache of another question", report.donor);
    if (report.missing_sharers?.length) this.note("Sharers that could not be reached", report.missing_sharers.join(", "));
    if (expected) this.#verdict(expected);
    const early = ENDED_BY[report.ended_by] ?? (report.reason === "length" ? "Done, at the longest length" : "Done");
    this.#state("done", early);
    return report;
  }

  #numbers(report) {
    this.parts.first.textContent = seconds(report.first_token_seconds ?? this.firstToken);
    this.parts.total.textContent = seconds(report.seconds);
    const message = report.message_tokens === undefined ? "" : ` + ${report.message_tokens} message`;
    this.parts.count.textContent = `${report.completion_tokens}${message}`;
    const crossed = report.message === undefined ? report.fused_bytes ?? 0 : utf8Length(report.message);
    const kind = crossed === 0 ? "" : report.message === undefined ? " of cache" : " of text";
    this.parts.bytes.textContent = bytes(crossed) + kind;
  }

  #verdict(expected) {
    const isRight = this.text.toLowerCase().includes(expected.toLowerCase());
    this.parts.verdict.dataset.right = isRight;
    showText(this.parts.verdict, isRight ? "✓ as expected" : "✗ not as expected");
  }

  #fail(error) {
    if (error.name === "AbortError") {
      this.#state("stopped", "Stopped");
    } else {
      this.#state("failed", "Failed");
      showText(this.parts.failure, error.message);
      this.failure = error;
    }
    return null;
  }

  #rest() {
    if (document.activeElement === this.parts.stop) byId("question").focus();
    this.parts.stop.disabled = true;
    this.running = null;
    this.onChange(this);
  }

  #clock() {
    this.start = performance.now();
    return setInterval(() => {
      this.parts.total.textContent = seconds((performance.now() - this.start) / 1000);
    }, TICK_MS);
  }

  #clear() {
    this.firstToken = this.message = this.failure = undefined;
    this.parts.answer.textContent = "";
    this.parts.notes.replaceChildren();
    showText(this.parts.verdict, null);
    showText(this.parts.failure, null);
    for (const name of ["first", "total", "count", "bytes"]) this.parts[name].textContent = "–";
  }

  #state(name, text) {
    this.root.dataset.state = name;
    this.root.setAttribute("aria-busy", ["waiting", "message", "answering"].includes(name));
    this.parts.state.textContent = text;
  }
}
