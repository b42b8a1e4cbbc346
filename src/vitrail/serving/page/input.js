// Inputs: drop anywhere in the window, paste anywhere on the page, choose a file, take a photograph, or type.
import { photograph } from "./camera.js";
import { $, announce, el } from "./dom.js";
import { decode, drawn, example, exampleCloud } from "./picture.js";
import { EXAMPLES, t } from "./strings.js";

const state = { kind: "", task: "", limit: Infinity, given: null, onGiven: () => {}, onProblem: () => {} };
let examples = 0;

export function startInput(onGiven, onProblem) {
  Object.assign(state, { onGiven, onProblem });
  $("choose").onclick = () => $("file").click();
  $("file").onchange = () => {
    if ($("file").files.length) giveFile($("file").files[0]);
    $("file").value = ""; // the same file may be chosen again
  };
  $("photograph").onclick = async () => {
    const answer = await photograph();
    $("photograph").focus();
    if (answer === "file") $("file").click();
    else if (answer) giveBlob(answer, t("input.photograph"));
  };
  $("paste").onclick = pasteByButton;
  $("example").onclick = $("text-example").onclick = useExample;
  $("run").onclick = giveText;
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      giveText();
    }
  });
  document.addEventListener("paste", onPaste);
  listenForDrops();
}

// The form that fits a model: kind is image, cloud or text.
export function setKind(kind, task, limit) {
  const changed = kind !== state.kind || (kind === "text" && task !== state.task);
  Object.assign(state, { kind, task, limit });
  const text = kind === "text";
  $("texts").hidden = !text;
  $("files").hidden = text;
  $("photograph").hidden = $("paste").hidden = kind !== "image";
  $("file").accept = kind === "image" ? "image/*" : "";
  $("files-title").textContent = t(kind === "points" ? "input.points" : "input.image");
  $("hint").textContent = t(kind === "points" ? "input.points.hint" : "input.image.hint");
  const label = task === "language" ? "input.prompt" : task === "pretrain" ? "input.masked" : "input.text";
  $("text-label").textContent = t(label);
  if (changed) {
    state.given = null;
    showPreview(null, "");
    if (text) $("text").value = "";
  }
  return state.given;
}

function useExample() {
  const texts = EXAMPLES[state.task];
  if (state.kind === "points") return giveBlob(exampleCloud(), `${t("input.examplename")}.xyz`);
  if (state.kind === "image") return example().then((blob) => giveBlob(blob, t("input.examplename")));
  $("text").value = (texts || EXAMPLES.sentiment)[examples++ % (texts || EXAMPLES.sentiment).length];
  return giveText();
}

function giveText() {
  const text = $("text").value;
  if (!text.trim() && state.task !== "language") return $("text").focus();
  state.given = { kind: "text", text, name: text.slice(0, 60) };
  state.onGiven(state.given);
}

function giveFile(file) {
  if (state.kind === "text") return file.text().then((text) => { $("text").value = text.slice(0, 20000); giveText(); });
  return giveBlob(file, file.name);
}

async function giveBlob(blob, name) {
  if (blob.size > state.limit) {
    const [size, limit] = [blob.size, state.limit].map((bytes) => (bytes / 1e6).toFixed(1));
    return state.onProblem(t("input.toolarge", { name, size, limit }));
  }
  if (state.kind === "image" && blob.type && !blob.type.startsWith("image/"))
    return state.onProblem(t("input.notimage", { name, hint: t("input.pickimage") }));
  const picture = state.kind === "image" ? await decode(blob) : null;
  // Server errors and logs do not need the name of a private file: only its ending selects a reader of clouds.
  const ending = /\.[a-z0-9]{1,5}(\.gz)?$/i.exec(name)?.[0] || "";
  state.given = { kind: state.kind, blob, name, picture, file: `input${ending}` };
  showPreview(picture, name);
  return state.onGiven(state.given);
}

function showPreview(picture, name) {
  const unseen = state.kind === "image" && name && !picture;
  $("preview").replaceChildren(
    ...(picture ? [drawn(picture, { role: "img", "aria-label": t("input.preview", { name }) }, 320)] : []),
    el("p", { class: "soft" }, name ? t(unseen ? "input.unseen" : "input.preview", { name }) : t("input.nothing")),
  );
}

// Keys pasted into a field stay there; anything else on the page is an input.
function onPaste(event) {
  if (document.querySelector("dialog[open]")) return;
  const files = [...(event.clipboardData?.files || [])];
  const text = event.clipboardData?.getData("text/plain") || "";
  const field = event.target instanceof Element && event.target.closest("textarea, input:not([type=range])");
  if (state.kind === "text") {
    if (field || !text) return;
    event.preventDefault();
    $("text").value = text;
    giveText();
  } else if (files.length) {
    event.preventDefault();
    giveBlob(files[0], state.kind === "image" ? t("input.pasted") : files[0].name);
  } else if (!field) {
    state.onProblem(t("input.nothingpasted"));
  }
}

// Phones have no Ctrl + V; this asks for the clipboard, which the browser may refuse.
async function pasteByButton() {
  try {
    if (state.kind === "text") {
      $("text").value = await navigator.clipboard.readText();
      return giveText();
    }
    for (const item of await navigator.clipboard.read()) {
      const kind = item.types.find((type) => type.startsWith("image/"));
      if (kind) return giveBlob(await item.getType(kind), t("input.pasted"));
    }
    return state.onProblem(t("input.nothingpasted"));
  } catch {
    return state.onProblem(t("input.pasteblocked"));
  }
}

// The browser would open a dropped file in place of the page: every drag is taken, wherever it ends.
function listenForDrops() {
  let depth = 0;
  const veil = $("veil");
  const carries = (event) => [...(event.dataTransfer?.types || [])].some((type) => type === "Files" || type === "text/plain");
  window.addEventListener("dragenter", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth++;
    veil.hidden = false;
  });
  window.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  window.addEventListener("dragleave", () => { if (--depth <= 0) { depth = 0; veil.hidden = true; } });
  window.addEventListener("drop", (event) => {
    depth = 0;
    veil.hidden = true;
    event.preventDefault();
    const file = event.dataTransfer.files[0], text = event.dataTransfer.getData("text/plain");
    if (file) { announce(t("input.preview", { name: file.name })); giveFile(file); }
    else if (text && state.kind === "text") { $("text").value = text; giveText(); }
  });
}
