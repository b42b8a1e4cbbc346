// The page: which models there are, which panel shows which task, and what happens with an input.
import { getJson, onToken, trace } from "./api.js";
import { AttentionView } from "./attention.js";
import { fillCards } from "./card.js";
import { $, announce, el, fillTexts } from "./dom.js";
import { setKind, startInput } from "./input.js";
import { classes, labels } from "./panel_classes.js";
import { detect } from "./panel_detect.js";
import { language } from "./panel_language.js";
import { parts, points } from "./panel_points.js";
import { complete, restore } from "./panel_restore.js";
import { segment } from "./panel_segment.js";
import { masks, other, sentiment } from "./panel_text.js";
import { translate } from "./panel_translate.js";
import { showRuns } from "./runs.js";
import { settings } from "./settings.js";
import { known, t } from "./strings.js";

const PANELS = { classify: classes, multilabel: labels, segment, detect, restore, complete, points, parts, sentiment, translate, language, pretrain: masks };
const state = { models: [], limits: {}, chosen: [], input: null, options: {}, running: null, views: [], redraw: [] };

start();

async function start() {
  fillTexts(document);
  document.title = t("page.title");
  startTheme();
  onToken(askToken);
  startInput(run, problem);
  $("problem-close").onclick = () => { $("problem").hidden = true; };
  try {
    const { models, limits } = await getJson("/v1/models");
    Object.assign(state, { models, limits });
    fillModels();
    await showRuns();
  } catch (error) {
    problem(error);
  }
}

function fillModels() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const names = state.models.map((model) => model.name);
  $("model").replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  if (names.includes(wanted.get("model"))) $("model").value = wanted.get("model");
  $("model").onchange = () => choose(true);
  $("compare").onchange = () => choose(false);
  choose(true, wanted.get("compare"));
}

// A model can be compared with those that read the same kind of input.
function choose(refill, wanted = $("compare").value) {
  const model = state.models.find((one) => one.name === $("model").value);
  if (refill) {
    const peers = state.models.filter((one) => one !== model && one.input === model.input);
    $("compare").replaceChildren(el("option", { value: "" }, t("model.none")), ...peers.map((one) => el("option", { value: one.name }, one.name)));
    $("compare").value = peers.some((one) => one.name === wanted) ? wanted : "";
    $("compare").disabled = !peers.length;
    $("alone").hidden = state.models.length > 1;
  }
  const second = state.models.find((one) => one.name === $("compare").value);
  state.chosen = second ? [model, second] : [model];
  const hash = new URLSearchParams({ model: model.name, ...(second ? { compare: second.name } : {}) });
  history.replaceState(null, "", `#${hash}`);
  $("facts").textContent = facts(model);
  state.options = {};
  fillSettings(model);
  fillCards(state.chosen, problem);
  const given = setKind(model.input, model.task, state.limits.body_bytes);
  if (given) run(given);
  else clear();
}

function facts(model) {
  const words = [taskOf(model), model.variant, model.parameters === null ? "" : t("model.parameters", { count: new Intl.NumberFormat("en").format(model.parameters) })];
  if (model.classes?.length) words.push(t("model.classes", { count: model.classes.length }));
  if (model.form) words.push(model.form);
  return words.filter(Boolean).join(" · ") + (model.ready === false ? ` · ${t("model.loading")}` : "");
}

const taskOf = (model) => (known(`task.${model.task}`) ? t(`task.${model.task}`) : t("task.other", { task: model.task }));

function fillSettings(model) {
  const form = settings(model, state.options, () => { if (state.input) run(state.input); });
  $("settings").hidden = !form.children.length;
  $("settings-form").replaceChildren(form);
}

function clear() {
  state.running?.abort();
  state.input = null;
  forget();
  $("results").replaceChildren(el("p", { class: "empty soft" }, t("status.empty")));
}

function forget() {
  state.views.forEach((view) => view.remove());
  state.views = [];
  state.redraw = [];
}

// A new input ends what is under way: its answers are of no use any more.
async function run(input) {
  state.running?.abort();
  const running = (state.running = new AbortController());
  state.input = input;
  forget();
  $("problem").hidden = true;
  $("results").classList.toggle("two", state.chosen.length > 1);
  const panels = state.chosen.map((model) => panelOf(model));
  $("results").replaceChildren(...panels.map((panel) => panel.node));
  $("results").setAttribute("aria-busy", "true");
  announce(t("status.working"));
  const started = performance.now();
  await Promise.all(panels.map((panel, i) => fill(panel, state.chosen[i], input, running.signal)));
  if (running.signal.aborted) return;
  $("results").setAttribute("aria-busy", "false");
  const answers = [...document.querySelectorAll(".answer")].map((node) => node.textContent).join("; ");
  announce(`${t("status.done", { ms: Math.round(performance.now() - started) })} ${answers}`);
}

function panelOf(model) {
  const title = el("h2", {}, model.name), body = el("div", { class: "body" }, el("p", { class: "soft working" }, t("status.working")));
  title.id = `panel-${state.chosen.indexOf(model)}`;
  const timing = el("p", { class: "timing soft" }), side = el("div", { class: "side" }, body);
  return { node: el("article", { class: "panel", "aria-labelledby": title.id }, el("div", { class: "heading" }, title, timing), side), body, side, timing };
}

async function fill(panel, model, input, signal) {
  const started = performance.now(), body = el("div", { class: "body" });
  const context = { model, input, options: { ...state.options }, signal, body, redraw: state.redraw };
  try {
    if (model.task === "language") panel.body.replaceChildren(body); // it is watched while it grows
    const answer = await (PANELS[model.task] || other)(context);
    panel.body.replaceChildren(body);
    if (answer.timing) {
      const { compute_ms: compute, queue_ms: queue } = answer.timing, total = performance.now() - started;
      const [c, q, all] = [compute, queue, total].map((value) => (value < 10 ? value.toFixed(1) : value.toFixed(0)));
      panel.timing.textContent = t("status.timing", { compute: c, queue: q, total: all });
    }
    if (model.traceable) panel.side.append(traceButton(model, input));
    if (input.kind === "image" && model.task !== "restore" && model.task !== "complete") await look(panel, model, input, signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    panel.body.replaceChildren(el("p", { class: "failed" }, error.message));
    problem(error);
  }
}

// Windows that open by themselves are blocked, so the finished trace is a link.
function traceButton(model, input) {
  const button = el("button", { type: "button", onclick: async () => {
    button.disabled = true;
    button.textContent = t("trace.working");
    try {
      const link = el("a", { href: await trace(model, input), target: "_blank", rel: "noopener", class: "button" }, t("trace.open", { model: model.name }));
      button.replaceWith(link);
      link.focus();
    } catch (error) {
      button.disabled = false;
      button.textContent = t(`trace.${input.kind}`);
      problem(error);
    }
  } }, t(`trace.${input.kind}`));
  return el("p", { class: "last" }, button);
}

async function look(panel, model, input, signal) {
  const view = new AttentionView(model, input);
  state.views.push(view);
  panel.node.append(view.node);
  panel.side.append(view.overview);
  await view.load(signal);
}

function problem(error) {
  const text = typeof error === "string" ? error : error.message;
  $("problem-text").textContent = error.requestId ? `${text} (${t("problem.request", { id: error.requestId })})` : text;
  $("problem").hidden = false;
}

// Asks for the token until one is given; the server's answer to it decides whether it is asked again.
function askToken(wrong) {
  const dialog = $("token"), field = $("token-field");
  $("token-note").textContent = wrong ? t("token.wrong") : t("token.hint");
  field.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      if (!field.value) return;
      dialog.close();
      resolve(field.value);
    };
    dialog.oncancel = (event) => event.preventDefault(); // without a token there is nothing to see
  });
}

function startTheme() {
  const theme = $("theme"), apply = () => {
    if (theme.value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme.value;
    state.redraw.forEach((draw) => draw());
    state.views.forEach((view) => view.layers && view.show());
  };
  for (const name of ["auto", "light", "dark"]) theme.append(el("option", { value: name }, t(`theme.${name}`)));
  theme.value = localStorage.getItem("vitrail-theme") || "auto";
  theme.onchange = () => { localStorage.setItem("vitrail-theme", theme.value); apply(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  apply();
}
