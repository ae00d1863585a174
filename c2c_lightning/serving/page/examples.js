/** Example questions, for the embedded pair or for any other. */

import { byId, element } from "./dom.js";

const EMBEDDED = "embedded:";

/** The examples that fit a fused model. */
export async function examplesFor(model) {
  const all = await (await fetch("page/examples.json")).json();
  return model.c2c.receiver.startsWith(EMBEDDED) ? all.embedded : all.real;
}

/** A button for each example; `onChoice` is called with the one that was chosen. */
export function showExamples(examples, onChoice) {
  byId("examples").replaceChildren(
    ...examples.map((example) => {
      const button = element("button", "", example.label);
      button.type = "button";
      button.addEventListener("click", () => {
        byId("question").value = example.question;
        byId("context").value = example.context ?? "";
        byId("private").open = Boolean(example.context);
        onChoice(example);
      });
      return button;
    }),
  );
}

/** The answer that an example expects; none for other questions. */
export function showExpected(expected) {
  byId("expected").querySelector("strong").textContent = expected ?? "";
  byId("expected").hidden = !expected;
}
