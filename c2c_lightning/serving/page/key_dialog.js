/** Asks for the API key of the server. */

import { byId, showText } from "./dom.js";
import { apiKey } from "./server_api.js";

const PRINTABLE = /^[\x21-\x7e]+$/; // what a header can carry

/** Prepare the dialog; `onKey` is called with each new key stored. */
export function setUpKeyDialog(onKey) {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = byId("key").value.trim();
    if (!PRINTABLE.test(key)) {
      showText(byId("key-error"), "A key has letters, digits and signs without accents or spaces.");
      return;
    }
    apiKey.set(key);
    byId("key").value = "";
    byId("key-dialog").close();
    byId("forget-key").hidden = false;
    onKey();
  });
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
  byId("forget-key").hidden = !apiKey.get();
  byId("forget-key").addEventListener("click", () => {
    apiKey.forget();
    byId("forget-key").hidden = true;
    askForKey();
  });
}

/** Open the dialog; where a key was sent, it was wrong. */
export function askForKey() {
  showText(byId("key-error"), apiKey.get() ? "The server refuses this key." : null);
  if (!byId("key-dialog").open) byId("key-dialog").showModal();
}
