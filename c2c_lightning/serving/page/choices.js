/** The settings of C2C, as the field `c2c` of a request. */

import { byId, element } from "./dom.js";

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`);

/** One checkbox for each sharer of the fused pair. */
export function showSharers(names) {
  byId("sharers").replaceChildren(
    ...names.map((name, number) => {
      const label = element("label");
      const box = element("input");
      Object.assign(box, { type: "checkbox", name: "sharer", value: number, checked: true });
      label.append(box, element("span", "", name));
      return label;
    }),
  );
}

/** The field `c2c` of the fused pair. */
export function c2cField() {
  const active = [...document.querySelectorAll("input[name=sharer]:checked")].map((box) => Number(box.value));
  return {
    gates: chosen("gates").value,
    active_sharers: active,
    ...(chosen("cache").value === "mismatched" && { control: "mismatched" }),
  };
}

/** The settings in words. */
export function choicesText() {
  const boxes = [...document.querySelectorAll("input[name=sharer]")];
  const numActive = boxes.filter((box) => box.checked).length;
  const sharers = numActive === boxes.length ? [] : [`${numActive} of ${boxes.length} sharers`];
  return [`gates ${chosen("gates").value}`, `${chosen("cache").nextElementSibling.textContent} cache`, ...sharers].join(", ");
}
