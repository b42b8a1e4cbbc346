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
  const heads = ["runs.name", "runs.task", "runs.model", "runs.metrics", "runs.when", "runs.report"].map((key) => el("th", { scope: "col", role: "columnheader" }, t(key)));
  const body = el("tbody", { role: "rowgroup" }, ...runs.map(row));
  section.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("runs.title") }, el("table", { role: "table" }, el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads)), body)));
}

// Roles keep this a table where a narrow screen draws its rows as cards.
function row(run) {
  const metrics = Object.entries(run.metrics).map(([name, value]) => `${name} ${value}`).join(" · ") || t("runs.unfinished");
  const report = run.report ? el("a", { href: run.report, target: "_blank", rel: "noopener" }, t("runs.open", { name: run.name })) : "";
  const when = new Date(1000 * run.modified).toISOString().slice(0, 16).replace("T", " ");
  const cells = [run.task, run.model, metrics, when, report].map((content) => el("td", { role: "cell" }, content));
  return el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader" }, run.name), ...cells);
}
