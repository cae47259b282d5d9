"use strict";
// Draws the cases of a run from the data in the page. Every text goes in as text (textContent): none becomes markup.
(() => {
  const holder = document.getElementById("matrix");
  if (!holder) return;
  const data = JSON.parse(document.getElementById("data").textContent);
  const { engines, baseline, tests, test_names: testNames, verdicts, cases, texts } = data;
  const dialog = document.getElementById("case");
  const filters = document.getElementById("filters");
  const find = document.getElementById("find");
  const reset = document.getElementById("reset");
  const selects = document.getElementById("selects");
  const byAnchor = new Map(cases.map((one, place) => [one.at, place]));
  const PREVIEW = 100;

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // Characters that move, hide or reorder what is read are shown by their number.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;
  function foreign(text, into) {
    let from = 0;
    for (const match of text.matchAll(HIDDEN)) {
      if (match.index > from) into.append(text.slice(from, match.index));
      const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      into.append(make("span", { class: "ctl", title: `U+${code}` }, code.length > 4 || parseInt(code, 16) > 255 ? `U+${code}` : `\\x${code.slice(2).toLowerCase()}`));
      from = match.index + match[0].length;
    }
    if (from < text.length) into.append(text.slice(from));
    return into;
  }
  const plain = (text) => foreign(text, make("bdi", {}));
  const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

  // what is known of a case -------------------------------------------------------------------------------------------

  const answerOf = (one, place) => {
    const answer = one.answers[place];
    return answer && answer.same ? { ...one.answers[baseline], ...answer } : answer;
  };
  const marksOf = (one, place) => (one.marks || []).filter((mark) => verdicts[mark.v].engine === place);
  const wrongOf = (one, place) => marksOf(one, place).find((mark) => !verdicts[mark.v].pair);

  function stateOf(one, place) {
    const answer = one.answers[place];
    if (!answer) return { word: "not asked", kind: "" };
    if (answer.failed) return { word: "no answer", kind: "failed" };
    const pair = one.pairs[place];
    const mark = marksOf(one, place).find((each) => verdicts[each.v].pair && each.at !== undefined);
    const token = mark ? mark.at : pair && pair.token;
    const where = pair && pair.char !== undefined ? `after ${count(Math.floor(token ?? 0), "token")}` : "";
    const grade = (mark && mark.grade) || (pair && pair.grade) || "";
    const beside = [{ worse: "right before", better: "wrong before" }[(one.turned || {})[place]], where, grade].filter(Boolean).join(", ");
    if (wrongOf(one, place)) return { word: "wrong", kind: "wrong", beside };
    if (place === baseline) return { word: "", kind: "" };
    if (answer.same) return { word: "same", kind: "same" };
    if (!pair) return { word: "", kind: "" };
    return { word: "differs", kind: "differs", beside };
  }

  const isDifferent = (one) => Object.keys(one.pairs).length > 0 || isSilent(one);
  const isSilent = (one) => one.answers.some((answer) => answer && answer.failed);
  const isFailure = (one) => isSilent(one) || (one.marks || []).some((mark) => !verdicts[mark.v].pair || (verdicts[mark.v].bad && !mark.uncounted));
  const different = cases.map(isDifferent);
  const failures = cases.map(isFailure);
  // "worse" (right before and wrong now) or "better", by engine, of the cases that turned.
  const flips = cases.map((one) => Boolean(one.turned));
  document.getElementById("n-flips").closest("label").hidden = !data.judged;
  let sought = null;
  const searchable = () => {
    // Made when somebody first searches, because it doubles what the page holds.
    sought = sought || cases.map((one) => [one.id, ...(one.tags || []), ...one.asked.map(([, place]) => texts[place]), ...one.answers.map((answer) => (answer && (answer.text || answer.why)) || "")].join("\n").toLowerCase());
    return sought;
  };

  // filters -----------------------------------------------------------------------------------------------------------

  const marked = (value) => (one, chosen) => (one.marks || []).some((mark) => value(verdicts[mark.v], mark) === chosen);
  const KINDS = [
    ["test", "Test", testNames, (one, chosen) => one.tests.some((place) => testNames[place] === chosen)],
    ["check", "Check", verdicts.map((verdict) => verdict.kind)],
    ["engine", "Engine", engines.filter((name, place) => place !== baseline)],
    ["tag", "Tag", cases.flatMap((one) => one.tags || []), (one, chosen) => (one.tags || []).includes(chosen)],
    ["outcome", "Outcome", verdicts.map((verdict) => verdict.outcome)],
    ["cause", "Cause", verdicts.flatMap((verdict) => verdict.causes)],
  ];
  const chosen = {};
  for (const [name, title, values] of KINDS) {
    const options = [...new Set(values)];
    if (options.length < (name === "cause" ? 1 : 2)) continue;
    if (name === "tag" || name === "check") options.sort();
    const select = make("select", { name }, make("option", { value: "" }, "any"));
    for (const option of options) select.append(foreign(option, make("option", { value: option })));
    selects.append(make("label", {}, title, select));
    chosen[name] = select;
  }
  const value = (name) => (chosen[name] ? chosen[name].value : "");

  function passes(one, place) {
    const show = filters.elements.show.value;
    if (show === "different" && !different[place]) return false;
    if (show === "failures" && !failures[place]) return false;
    if (show === "flips" && !(value("engine") ? (one.turned || {})[engines.indexOf(value("engine"))] : flips[place])) return false;
    for (const [name, , , holds] of KINDS) if (holds && value(name) && !holds(one, value(name))) return false;
    const [check, engine, outcome, cause] = ["check", "engine", "outcome", "cause"].map(value);
    if (check || outcome || cause) {
      const fits = (one.marks || []).some((mark) => {
        const verdict = verdicts[mark.v];
        return (!check || verdict.kind === check) && (!outcome || verdict.outcome === outcome) && (!cause || verdict.causes.includes(cause)) && (!engine || engines[verdict.engine] === engine);
      });
      if (!fits) return false;
    } else if (engine) {
      const at = engines.indexOf(engine);
      if (!(at in one.pairs) && !marksOf(one, at).length && !(one.answers[at] && one.answers[at].failed)) return false;
    }
    const words = find.value.trim().toLowerCase();
    return !words || searchable()[place].includes(words);
  }

  let shown = [];
  let here = -1;
  function apply() {
    const current = shown[here];
    shown = [];
    cases.forEach((one, place) => { if (passes(one, place)) shown.push(place); });
    here = shown.indexOf(current);
    const all = shown.length === cases.length;
    document.getElementById("count").textContent = all ? count(cases.length, "case") : `${shown.length.toLocaleString("en")} of ${count(cases.length, "case")}`;
    reset.hidden = !(find.value || filters.elements.show.value !== start || KINDS.some(([name]) => value(name)));
    clear();
    layout();
  }
  for (const [id, row] of [["n-all", null], ["n-different", different], ["n-failures", failures], ["n-flips", flips]]) {
    document.getElementById(id).textContent = (row ? row.filter(Boolean).length : cases.length).toLocaleString("en");
  }
  const start = different.some(Boolean) ? "different" : "all";
  function clearFilters() {
    find.value = "";
    for (const select of Object.values(chosen)) select.value = "";
    filters.elements.show.value = start;
  }
  // The filters stand in the address: #case-ID?show=all&check=text. What is none of the page's own values is passed over.
  const fragment = () => { const [target, given] = location.hash.slice(1).split("?", 2); return [target, new URLSearchParams(given || "")]; };
  function inForce() {
    const given = new URLSearchParams();
    if (filters.elements.show.value !== start) given.set("show", filters.elements.show.value);
    for (const name of Object.keys(chosen)) if (value(name)) given.set(name, value(name));
    if (find.value.trim()) given.set("find", find.value.trim());
    const text = given.toString();
    return text ? `?${text}` : "";
  }
  const addressed = (target) => `#${target || (inForce() ? "cases" : "")}${inForce()}`;
  function remember(how) {
    const to = addressed(fragment()[0]);
    if (to !== (location.hash || "#")) history[how](null, "", to);
  }
  function recall() {
    const [, given] = fragment();
    clearFilters();
    const show = given.get("show");
    if (["all", "different", "failures", ...(data.judged ? ["flips"] : [])].includes(show)) filters.elements.show.value = show;
    for (const [name, select] of Object.entries(chosen)) {
      const wanted = given.get(name);
      if (wanted !== null && [...select.options].some((option) => option.value === wanted)) select.value = wanted;
    }
    find.value = (given.get("find") || "").slice(0, 200);
  }
  reset.addEventListener("click", () => { clearFilters(); apply(); remember("pushState"); find.focus(); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("change", () => { apply(); remember("pushState"); });
  let waiting = 0;
  find.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => { apply(); remember("replaceState"); }, 120); });
  document.querySelectorAll("a.tocases").forEach((link) => link.addEventListener("click", (event) => {
    const verdict = verdicts[Number(link.dataset.verdict)];
    clearFilters();
    filters.elements.show.value = "all";
    const wanted = { test: testNames[verdict.test], check: verdict.kind, engine: verdict.pair ? engines[verdict.engine] : "" };
    for (const [name, to] of Object.entries(wanted)) if (chosen[name]) chosen[name].value = to;
    apply();
    event.preventDefault();  // its own way to the cases knows no filters
    history.pushState(null, "", addressed(""));
    document.getElementById("cases").scrollIntoView();
  }));

  // the matrix: only rows that are in view are there ------------------------------------------------------------------

  const order = [baseline, ...engines.keys()].filter((place, at, all) => place >= 0 && all.indexOf(place) === at);
  holder.style.setProperty("--n", String(order.length));
  holder.style.setProperty("--others", String(Math.max(1, order.length - 1)));
  const heads = make("div", { class: "row heads", role: "row", "aria-rowindex": "1" }, make("div", { role: "columnheader" }, "case"));
  for (const place of order) {
    heads.append(make("div", { role: "columnheader" }, plain(engines[place]), place === baseline ? make("span", { class: "quiet" }, " baseline") : null));
  }
  const list = make("div", { class: "rows", role: "rowgroup" });
  holder.append(make("div", { class: "headgroup", role: "rowgroup" }, heads), list);
  const probe = make("div", { class: "probe" });
  holder.append(probe);
  const drawn = new Map();
  let height = 56;
  let whole = false;

  function clear() {
    for (const node of drawn.values()) node.remove();
    drawn.clear();
    list.querySelectorAll(".none").forEach((node) => node.remove());
  }
  function layout() {
    height = probe.getBoundingClientRect().height;
    list.style.height = shown.length ? `${shown.length * height}px` : "";
    holder.setAttribute("aria-rowcount", String(shown.length + 1));
    if (!shown.length) list.append(make("div", { class: "none", role: "row" }, make("span", { role: "cell" }, "No case is left by these filters.")));
    draw();
  }
  function draw() {
    const top = list.getBoundingClientRect().top;
    const first = whole ? 0 : Math.max(0, Math.floor(-top / height) - 8);
    const last = whole ? Math.min(shown.length, 1000) : Math.min(shown.length, Math.max(first + 24, Math.ceil((innerHeight - top) / height) + 8));
    for (const [at, node] of drawn) if (at < first || at >= last) { node.remove(); drawn.delete(at); }
    for (let at = first; at < last; at += 1) {
      if (drawn.has(at)) continue;
      const node = row(at);
      drawn.set(at, node);
      const next = list.children[at - first];
      list.insertBefore(node, next || null);
    }
  }
  function preview(answer, pair, mine) {
    if (!answer) return "";
    if (answer.failed) return answer.why;
    if (answer.calls) return answer.calls.map(([name, values]) => `${name}(${values})`).join(" ");
    const text = answer.text || "";
    // What differs is what a reader looks for: from a little before the fork on.
    const from = pair && pair.char > 24 ? pair.char - 16 : 0;
    return (from ? "…" : "") + text.slice(from, from + PREVIEW).replace(/\s+/g, " ");
  }
  function row(at) {
    const one = cases[shown[at]];
    const link = make("a", { href: addressed(`case-${encodeURIComponent(one.at)}`) }, plain(one.id));
    const notes = [...(one.tags || [])];
    const first = make("div", { class: "cell", role: "cell" }, link, foreign(notes.join(", "), make("span", { class: "line" })));
    const node = make("div", { class: at === here ? "row here" : "row", role: "row", "aria-rowindex": String(at + 2) }, first);
    node.style.top = `${at * height}px`;
    for (const place of order) {
      const state = stateOf(one, place);
      const cell = make("div", { class: place === baseline && !state.word ? "cell base" : "cell", role: "cell" });
      const line = make("span", { class: "line on", "data-engine": engines[place] });
      if (state.word) line.append(make("span", { class: `chip ${state.kind}` }, state.word), state.beside ? ` ${state.beside}` : "");
      if (state.word || place !== baseline) cell.append(line);
      if (state.word !== "same") cell.append(foreign(preview(answerOf(one, place), one.pairs[place]), make("span", { class: "line text", dir: "auto" })));
      node.append(cell);
    }
    node.addEventListener("click", (event) => {
      if (event.target.closest("a") || String(getSelection())) return;
      location.hash = link.getAttribute("href");
    });
    link.addEventListener("focus", () => mark(at));
    return node;
  }
  function mark(at) {
    if (drawn.has(here)) drawn.get(here).classList.remove("here");
    here = at;
    if (drawn.has(here)) drawn.get(here).classList.add("here");
  }
  function go(at, focus) {
    if (!shown.length) return;
    at = Math.max(0, Math.min(shown.length - 1, at));
    const top = list.getBoundingClientRect().top + at * height;
    if (top < 60) scrollBy(0, top - 60);
    else if (top + height > innerHeight - 8) scrollBy(0, top + height - innerHeight + 8);
    draw();
    mark(at);
    if (focus) drawn.get(at).querySelector("a").focus({ preventScroll: true });
  }
  let frame = 0;
  const later = () => { if (!frame) frame = requestAnimationFrame(() => { frame = 0; draw(); }); };
  addEventListener("scroll", later, { passive: true });
  addEventListener("resize", () => { clear(); layout(); });
  addEventListener("beforeprint", () => { whole = true; draw(); });
  addEventListener("afterprint", () => { whole = false; draw(); });

  // one case ----------------------------------------------------------------------------------------------------------

  let unit = "pieces";
  function differing(text, lengths, side, char) {
    const into = make("pre", { class: "foreign", dir: "auto" });
    let at = 0;
    let forked = char === undefined;
    const put = (length, kind) => {
      let piece = text.slice(at, at + length);
      if (!forked && at + length > char) {
        // Among tokens the fork is before the whole token, also where both begin alike.
        const before = kind && unit === "pieces" ? "" : piece.slice(0, char - at);
        if (before) into.append(foreign(before, make("span", { class: kind })));
        into.append(make("span", { class: "fork" }, "fork"));
        forked = true;
        piece = piece.slice(before.length);
      }
      if (piece) into.append(kind ? foreign(piece, make("span", { class: kind })) : foreign(piece, make("span", {})));
      at += length;
    };
    for (let index = 0; index < lengths.length; index += 3) {
      put(lengths[index], "");
      if (side === 0) put(lengths[index + 1], "gone");
      else put(lengths[index + 2], "come");
    }
    if (!forked) into.append(make("span", { class: "fork" }, side === 0 || text.length <= char ? "ends here" : "fork"));
    if (!text) into.append(make("span", { class: "empty" }, "no text"));
    return into;
  }
  const called = (list, results = []) => list.map(([name, values], at) => make("div", {}, make("strong", {}, plain(name)), foreign(pretty(values), make("pre", { class: "foreign" })), at < results.length ? foreign(`→ ${pretty(results[at])}`, make("pre", { class: "foreign" })) : null));
  const turns = (answer) => (answer.turns || []).map(([text, list, results], at) => make("div", { class: "calls" }, make("p", { class: "head" }, `turn ${at + 1}`), text ? foreign(text, make("pre", { class: "foreign", dir: "auto" })) : null, ...called(list, results)));
  function calls(answer) {
    return answer.calls ? make("div", { class: "calls" }, make("p", { class: "head" }, count(answer.calls.length, "tool call")), ...called(answer.calls)) : null;
  }
  function pretty(text) {
    try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
  }
  function about(answer) {
    if (answer.failed) return [make("span", { class: "chip failed" }, answer.failed)];
    const parts = [];
    if (answer.tokens !== undefined) parts.push(count(answer.tokens, "token"));
    if (answer.end || answer.stopped) parts.push(answer.stopped || `ended by ${answer.end}`);
    if (answer.of) parts.push(`${answer.of[0]} texts in ${count(answer.of[1], "answer")}`);
    if (answer.again) parts.push(answer.unlike ? `answered otherwise itself: ${answer.unlike.join(", ")}` : `the same when asked ${answer.again} more times`);
    return parts.map((part) => make("span", { class: "quiet" }, part));
  }
  function side(name, answer, body) {
    const head = make("header", {}, make("strong", {}, plain(name)), ...about(answer));
    const thought = answer.reasoning ? make("details", {}, make("summary", {}, "reasoning"), foreign(answer.reasoning, make("pre", { class: "foreign", dir: "auto" }))) : null;
    const more = answer.more ? make("p", { class: "quiet" }, `${count(answer.more, "character")} more in samples.jsonl`) : null;
    return make("div", { class: "side" }, head, ...turns(answer), body, calls(answer), thought, more);
  }
  function whole_text(answer) {
    if (answer.failed) return foreign(answer.why, make("pre", { class: "foreign" }));
    if (!answer.text && answer.calls) return null;
    return answer.text ? foreign(answer.text, make("pre", { class: "foreign", dir: "auto" })) : make("p", { class: "foreign empty" }, "no text");
  }
  function probabilities(name, told, rival) {
    const row = (token, logprob, kind) => {
      const share = logprob === null ? null : Math.exp(logprob);
      const words = share === null ? "–" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
      const spelled = token.replace(/\n/g, "\\n").replace(/\r/g, "\\r").replace(/\t/g, "\\t");
      const label = foreign(spelled || "(empty)", make("code", {}));
      return make("div", { class: `prob ${kind}` }, label, share === null ? make("i", {}) : make("meter", { min: "0", max: "1", value: String(share), "aria-label": words }), make("span", {}, words));
    };
    const lead = told.lead === null ? `the other engine's token is not among its best ${told.others.length + 1}` : `leads the other engine's token by ${told.lead.toFixed(3).replace(/\.?0+$/, "")} nats`;
    const rows = told.others.map(([token, logprob]) => row(token, logprob, token === rival.token ? "rival" : ""));
    return make("figure", {}, make("figcaption", {}, plain(name), make("span", { class: "quiet" }, ` ${lead}`)), row(told.token, told.logprob, "chosen"), ...rows);
  }
  function compared(one, place) {
    const pair = one.pairs[place];
    const ours = answerOf(one, baseline);
    const theirs = one.answers[place];
    const state = stateOf(one, place);
    const names = [engines[baseline], engines[place]];
    const title = make("h3", {}, plain(`${names[1]} against ${names[0]}`), make("span", { class: `chip ${state.kind}` }, state.word), state.beside ? make("span", { class: "quiet" }, state.beside) : null, pair && pair.turn ? make("span", { class: "quiet" }, `part in turn ${pair.turn}`) : null);
    const block = make("section", { class: "pair" }, title);
    const both = make("div", { class: "sides" });
    const fill = () => {
      const lengths = (unit === "characters" && pair.characters) || pair.pieces;
      both.replaceChildren(...[ours, theirs].map((answer, at) => {
        const text = answer.text || "";
        const body = !lengths || (!text && answer.calls) ? whole_text(answer) : differing(text, lengths, at, pair.char);
        return side(names[at], answer, body);
      }));
    };
    if (pair.pieces && pair.characters) {
      const buttons = ["pieces", "characters"].map((name) => {
        const button = make("button", { type: "button", "aria-pressed": String(unit === name) }, name === "pieces" ? pair.unit : name);
        button.addEventListener("click", () => {
          unit = name;
          buttons.forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
          fill();
        });
        return button;
      });
      title.append(make("span", { class: "seg", role: "group", "aria-label": "What is marked as different" }, ...buttons));
    }
    fill();
    block.append(both);
    if (pair.fork) {
      block.append(make("p", { class: "head" }, "What each engine thought at the fork"));
      block.append(make("div", { class: "forks" }, probabilities(names[0], pair.fork[0], pair.fork[1]), probabilities(names[1], pair.fork[1], pair.fork[0])));
    }
    if (pair.fields) {
      const body = make("tbody", {}, ...pair.fields.map(([path, a, b]) => make("tr", {}, foreign(path, make("th", { scope: "row" })), foreign(a, make("td", {})), foreign(b, make("td", {})))));
      const head = make("thead", {}, make("tr", {}, ...["field", ...names].map((name) => make("th", { scope: "col" }, plain(name)))));
      block.append(make("p", { class: "head" }, count(pair.fields.length, "field") + (pair.fields.length === 1 ? " differs" : " differ")), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Fields that differ, ${names[1]}` }, make("table", { class: "plain" }, head, body)));
    }
    return block;
  }
  function talk(one) {
    if (!one.asked.length) return null;
    const rows = one.asked.map(([role, place, functions]) => {
      const said = make("dd", {}, foreign(texts[place], make("pre", { class: "foreign", dir: "auto" })));
      for (const [name, values] of functions || []) said.append(foreign(`${name}(${values})`, make("pre", { class: "foreign" })));
      return make("div", {}, foreign(role, make("dt", {})), said);
    });
    return [make("h3", {}, "Prompt"), make("dl", { class: "talk" }, ...rows)];
  }
  function content(one, at) {
    const close = make("button", { type: "button", "aria-label": "Close" }, "Close");
    close.addEventListener("click", () => dialog.close());
    const step = (by, words) => {
      const button = make("button", { type: "button", "aria-label": words, disabled: at + by < 0 || at + by >= shown.length }, by < 0 ? "↑" : "↓");
      button.addEventListener("click", () => move(by));
      return button;
    };
    const title = make("h2", { id: "case-title", tabindex: "-1" }, make("a", { href: addressed(`case-${encodeURIComponent(one.at)}`) }, plain(one.id)));
    const place = make("span", { class: "quiet" }, at < 0 ? "" : `${(at + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")}`);
    const bar = make("div", { class: "bar" }, title, place, step(-1, "Previous case"), step(1, "Next case"), close);
    const body = make("div", { class: "body" });
    const notes = [...(one.tags || []).map((tag) => `tag ${tag}`), ...(one.group ? [`group ${one.group}`] : []), ...one.tests.map((test) => tests[test])];
    body.append(make("ul", { class: "tags" }, ...notes.map((note) => foreign(note, make("li", {})))));
    if (one.marks) {
      body.append(make("ul", { class: "marks" }, ...one.marks.map((mark) => {
        const verdict = verdicts[mark.v];
        const words = ` ${verdict.kind} of ${engines[verdict.engine]}: ${mark.what}${mark.at === undefined ? "" : ` after ${count(Math.floor(mark.at), "token")}`}${mark.grade ? `, ${mark.grade}` : ""}${mark.uncounted ? " (not counted)" : ""}${verdict.causes.length ? `; cause: ${verdict.causes.join(", ")}` : ""}`;
        return make("li", {}, make("span", { class: `chip o-${verdict.outcome.toLowerCase()}` }, verdict.outcome.toLowerCase()), foreign(words, make("span", {})));
      })));
    }
    body.append(...(talk(one) || []));
    const apart = order.filter((each) => each in one.pairs);
    const alike = order.filter((each) => each !== baseline && one.answers[each] && one.answers[each].same);
    const others = order.filter((each) => each !== baseline && one.answers[each] && !(each in one.pairs) && !one.answers[each].same);
    for (const each of apart) body.append(compared(one, each));
    if (alike.length || !apart.length) {
      const ours = one.answers[baseline];
      if (ours) {
        const words = alike.length ? `${alike.map((each) => engines[each]).join(", ")} answered the same as ${engines[baseline]}` : engines[baseline];
        body.append(make("h3", {}, plain(words)));
        for (const each of alike) {
          const note = about(one.answers[each]);
          if (one.answers[each].unlike) body.append(make("p", {}, plain(engines[each]), " ", ...note));
        }
        if (!apart.length) body.append(side(engines[baseline], ours, whole_text(ours)));
      }
    }
    for (const each of others) body.append(make("h3", {}, plain(engines[each])), side(engines[each], one.answers[each], whole_text(one.answers[each])));
    return [bar, body];
  }
  function open(place) {
    const at = shown.indexOf(place);
    dialog.replaceChildren(...content(cases[place], at));
    dialog.dataset.place = String(place);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    dialog.querySelector("#case-title").focus({ preventScroll: true });
    if (at >= 0) mark(at);
  }
  function move(by) {
    const at = shown.indexOf(Number(dialog.dataset.place)) + by;
    if (at >= 0 && at < shown.length) history.replaceState(null, "", addressed(`case-${encodeURIComponent(cases[shown[at]].at)}`)), follow();
  }
  function follow() {
    const before = inForce();
    recall();
    if (inForce() !== before) apply();
    const [target] = fragment();
    let place;
    if (target.startsWith("case-")) {
      try { place = byAnchor.get(decodeURIComponent(target.slice(5))); } catch { place = undefined; }
    }
    if (place !== undefined) open(place);
    else if (dialog.open) dialog.close();
  }
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#case-")) history.pushState(null, "", inForce() ? addressed("") : location.href.split("#")[0]);
    const at = shown.indexOf(Number(dialog.dataset.place));
    dialog.replaceChildren();
    if (at >= 0) go(at, true);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  addEventListener("hashchange", follow);
  addEventListener("popstate", follow);

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape" && event.target === find && !dialog.open) { find.value = ""; find.blur(); apply(); remember("replaceState"); return; }
    if (typing && event.target.type !== "radio") return;
    if (event.key === "/" && !dialog.open) { event.preventDefault(); find.focus(); find.select(); }
    if (event.key !== "j" && event.key !== "k") return;
    event.preventDefault();
    const by = event.key === "j" ? 1 : -1;
    if (dialog.open) move(by);
    else go(here < 0 ? 0 : here + by, true);
  });

  recall();
  apply();
  follow();
})();
