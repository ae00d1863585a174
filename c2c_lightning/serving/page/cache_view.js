/** The gates by layer, and how much each token was changed. */

import { byId, element } from "./dom.js";

const SIGNS = new Map([[true, ["●", "open"]], [false, ["○", "closed"]], [null, ["–", "no gate"]]]);
const SHOWN_SPACES = new Map([["\n", "⏎"], ["\t", "⇥"], [" ", "␣"]]);

/** Show the report of a fused answer; hide the section where there is none. */
export function showCache(report, sharers) {
  byId("cache").hidden = !report?.gates;
  if (!report?.gates) return;
  byId("gates").replaceChildren(...report.gates.flatMap((gates, n) => sharerStrips(gates, sharers, n)));
  const largest = Math.max(...report.tokens.map((token) => token.change), 1e-9);
  byId("tokens").replaceChildren(...report.tokens.map((token) => tokenCell(token, largest)));
  if (!report.tokens.length) byId("tokens").append(element("li", "hint", "No token is fused."));
}

function sharerStrips(gates, sharers, number) {
  const strips = ["keys", "values"].map((part) => strip(part, gates[part], sharers[number]));
  return sharers.length > 1 ? [element("h4", "", sharers[number]), ...strips] : strips;
}

function strip(part, gates, sharer) {
  const row = element("div", "strip");
  const numGates = gates.filter((gate) => gate !== null).length;
  const label = element("p", "strip-label", part);
  const count = numGates ? `${gates.filter(Boolean).length} of ${numGates} open` : "no gates";
  label.append(element("span", "hint", count));
  const cells = element("ol", "gates");
  cells.setAttribute("aria-label", `Gates of the ${part}, ${sharer}`);
  cells.append(...gates.map(gateCell));
  row.append(label, cells);
  return row;
}

function gateCell(gate, layer) {
  const [sign, word] = SIGNS.get(gate);
  const cell = element("li");
  cell.dataset.gate = word;
  const shownSign = element("span", "sign", sign);
  shownSign.setAttribute("aria-hidden", "true");
  cell.append(element("span", "layer", String(layer)), shownSign, element("span", "unseen", ` ${word}`));
  cell.title = `Layer ${layer}: ${word}`;
  return cell;
}

function tokenCell({ text, change }, largest) {
  const cell = element("li");
  cell.style.setProperty("--heat", (change / largest).toFixed(3));
  cell.append(element("span", "token", shownText(text)), element("span", "change", percent(change)));
  return cell;
}

const percent = (change) => `${change < 0.1 ? (change * 100).toFixed(1) : Math.round(change * 100)} %`;

/** Spaces at the edges of a token are part of it, so that they are shown. */
function shownText(text) {
  const visible = text.replace(/^\s+|\s+$/g, (spaces) => [...spaces].map((space) => SHOWN_SPACES.get(space) ?? "␣").join(""));
  return visible || "(no text)";
}
