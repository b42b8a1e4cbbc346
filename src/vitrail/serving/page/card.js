// What is known of a model: size, cost, licence, published accuracy, and the run that trained it.
import { card } from "./api.js";
import { $, el } from "./dom.js";
import { t } from "./strings.js";

const short = (value) => new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value);

// The cards are read once they are opened.
export function fillCards(models, problem) {
  const box = $("card"), place = $("card-facts"), names = models.map((model) => model.name).join(" ");
  place.replaceChildren();
  box.dataset.models = names;
  const load = async () => {
    if (!box.open || place.children.length) return;
    const found = await Promise.all(models.map(card));
    if (box.dataset.models !== names) return; // others were chosen in the meantime
    place.replaceChildren(...found.flatMap((facts) => [found.length > 1 ? el("h3", {}, facts.name) : null, list(facts)]).filter(Boolean));
  };
  box.ontoggle = () => load().catch(problem);
  load().catch(problem);
}

function list(facts) {
  const { published, run } = facts, rows = [
    ["card.variant", [facts.variant, published?.family].filter(Boolean).join(" · ")],
    ["card.parameters", facts.parameters && new Intl.NumberFormat("en").format(facts.parameters)],
    ["card.cost", facts.multiply_adds ? t("card.cost.value", { macs: short(facts.multiply_adds), flops: short(2 * facts.multiply_adds) }) : facts.uncounted],
    ["card.licence", facts.licence || t("card.unknown")],
    ["card.dataset", facts.dataset],
    ["card.metrics", pairs(run?.metrics) || pairs(facts.metrics)],
    ["card.run", run && run.epochs !== null ? t("card.run.value", { ...run, epochs: short(run.epochs), best: run.best_epoch, minutes: (run.seconds / 60).toFixed(1) }) : run?.name],
    ["card.edits", facts.edits.join("; ")],
    ["card.published", published?.top1 ? t("card.published.value", published) : ""],
    ["card.hub", [published?.hub, published?.licence].filter(Boolean).join(" · ")],
    ["card.command", facts.command && el("code", {}, facts.command)],
  ];
  return el("dl", { class: "facts" }, ...rows.filter(([, value]) => value).flatMap(([key, value]) => [el("dt", {}, t(key)), el("dd", {}, value)]));
}

const pairs = (values) => Object.entries(values || {}).map(([name, value]) => `${name} ${typeof value === "number" ? Number(value.toPrecision(4)) : value}`).join(" · ");
