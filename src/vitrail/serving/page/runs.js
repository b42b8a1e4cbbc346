// Training runs of a folder and their reports, if the server was given one.
import { getJson, openSession } from "./api.js";
import { $, el } from "./dom.js";
import { t } from "./strings.js";

export async function showRuns() {
  await openSession(); // a report opens in a tab of its own, without the header of the token
  const { runs } = await getJson("/v1/runs");
  if (!runs) return; // the server was started without a folder of runs
  const section = $("runs");
  section.hidden = false;
  $("runs-link").hidden = false;
  if (!runs.length) {
    section.append(el("p", { class: "soft" }, t("runs.none")));
    return;
  }
  const heads = ["runs.name", "runs.task", "runs.model", "runs.metrics", "runs.when", "runs.report"].map((key) => el("th", { scope: "col" }, t(key)));
  const body = el("tbody", {}, ...runs.map(row));
  section.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("runs.title") }, el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body)));
}

function row(run) {
  const metrics = Object.entries(run.metrics).map(([name, value]) => `${name} ${value}`).join(" · ") || t("runs.unfinished");
  const report = run.report ? el("a", { href: run.report, target: "_blank", rel: "noopener" }, t("runs.open", { name: run.name })) : "";
  const when = new Date(1000 * run.modified).toISOString().slice(0, 16).replace("T", " ");
  return el("tr", {}, el("th", { scope: "row" }, run.name), el("td", {}, run.task), el("td", {}, run.model), el("td", {}, metrics), el("td", {}, when), el("td", {}, report));
}
