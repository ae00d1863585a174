/** Short forms of DOM calls. Text is set by textContent only, so that no answer is ever parsed as markup. */

export const byId = (id) => document.getElementById(id);

/** An element with a class and a text. */
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** Show a text, or hide its element where there is none. */
export function showText(target, text) {
  target.textContent = text ?? "";
  target.hidden = !text;
}
