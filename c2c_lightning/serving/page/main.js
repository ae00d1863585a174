/** The page: one question to the receiver, to text-to-text and to the fused pair at once. */

import { AnswerColumn } from "./answer_column.js";
import { showCache } from "./cache_view.js";
import { c2cField, choicesText, showSharers } from "./choices.js";
import { byId, element, showText } from "./dom.js";
import { examplesFor, showExamples, showExpected } from "./examples.js";
import { askForKey, setUpKeyDialog } from "./key_dialog.js";
import { servedModels } from "./server_api.js";

const NOT_SERVED = "Not served: the sharer is in another process, which sends caches only.";
const TEXTS = {
  receiver: { title: "Receiver alone", absent: "Not served" },
  t2t: { title: "Text-to-text", absent: NOT_SERVED },
  fused: { title: "C2C", absent: "Not served" },
};
const columns = Object.fromEntries(
  Object.entries(TEXTS).map(([name, texts]) => [
    name,
    new AnswerColumn(document.querySelector(`[data-column=${name}]`), texts, updateStop),
  ]),
);

let models = [];
let fused = null;
let asked = null; // the last question, which changed settings ask again
let choicesOfAnswer = "";

async function loadModels() {
  try {
    models = await servedModels();
    showText(byId("page-error"), null);
  } catch (error) {
    if (error.status === 401) return askForKey();
    return showText(byId("page-error"), error.message);
  }
  const pairs = models.filter((model) => model.c2c.kind === "fused");
  byId("fused-model").replaceChildren(...pairs.map((pair) => element("option", "", pair.id)));
  byId("pair-choice").hidden = pairs.length < 2;
  await choosePair(pairs[0]);
}

async function choosePair(pair) {
  fused = pair;
  asked = null;
  const { receiver, sharers, baselines } = pair.c2c;
  for (const name of ["receiver", "t2t"]) {
    columns[name].setModel(models.find((model) => model.id === baselines[name]) ?? null);
  }
  columns.fused.setModel(pair);
  byId("receiver-name").textContent = receiver;
  byId("sharers-label").parentElement.replaceChildren(
    byId("sharers-label"),
    ...sharers.map((sharer) => element("dd", "", sharer)),
  );
  byId("sharers-label").textContent = sharers.length > 1 ? "Sharers" : "Sharer";
  showSharers(sharers);
  showExpected(null);
  showCache(null);
  showExamples(await examplesFor(pair), (example) => ask(example.expected));
}

function ask(expected) {
  const question = byId("question").value.trim();
  if (!fused) return loadModels();
  if (!question) return byId("question").focus();
  if (!byId("max-tokens").reportValidity()) return;
  asked = { question, context: byId("context").value.trim(), expected };
  showExpected(expected);
  askColumn("receiver", {});
  askColumn("t2t", {});
  askFused();
}

async function askColumn(name, choices, notes) {
  const { question, context, expected } = asked;
  const body = {
    messages: [{ role: "user", content: question }],
    max_tokens: byId("max-tokens").valueAsNumber,
    c2c: { detail: true, ...(context && { sharer_context: context }), ...choices },
  };
  const column = columns[name];
  const report = await column.ask(body, expected, notes);
  if (column.failure?.status === 401) askForKey();
  if (report) announce(`${TEXTS[name].title}: ${column.text || "no text"}`);
  return report;
}

async function askFused(notes) {
  const settings = choicesText();
  const report = await askColumn("fused", c2cField(), notes);
  if (!report) return;
  choicesOfAnswer = settings;
  showCache(report, fused.c2c.sharers);
}

/** With changed settings C2C answers the same question again; its former answer stays in sight. */
function askFusedAgain() {
  if (!asked) return;
  const { text } = columns.fused;
  const before = columns.fused.isRunning || !text ? [] : [formerAnswer(text)];
  askFused(before);
}

function formerAnswer(text) {
  const note = element("div", "note former");
  note.append(element("h3", "", `Before: ${choicesOfAnswer}`), element("p", "", text));
  return note;
}

function stopAll() {
  for (const column of Object.values(columns)) column.stop();
}

function updateStop() {
  const isRunning = Object.values(columns).some((column) => column.isRunning);
  if (!isRunning && document.activeElement === byId("stop")) byId("question").focus();
  byId("stop").disabled = !isRunning;
}

function announce(text) {
  byId("status").append(element("p", "", text));
  while (byId("status").childElementCount > 3) byId("status").firstChild.remove();
}

function onKeyDown(event) {
  const isText = event.target.id === "question" || event.target.id === "context";
  if (event.key === "Enter" && isText && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("ask").requestSubmit();
  }
  if (event.key === "Escape" && !byId("key-dialog").open) stopAll();
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const isSame = asked?.question === byId("question").value.trim() && asked?.context === byId("context").value.trim();
  ask(isSame ? asked.expected : undefined);
});
byId("stop").addEventListener("click", stopAll);
byId("choices").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("ask").requestSubmit();
});
byId("choices").addEventListener("change", (event) => {
  if (event.target.id === "fused-model") choosePair(models.find((model) => model.id === event.target.value));
  else if (event.target.id !== "max-tokens") askFusedAgain();
});
document.addEventListener("keydown", onKeyDown);
setUpKeyDialog(loadModels);
loadModels();
