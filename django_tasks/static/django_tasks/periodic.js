"use strict";

// What a schedule means while it is typed, and a chooser that writes its text. Without this script the page has a
// button that shows the same.
{
  const PAUSE = 300;
  const SHAPES = {
    every: /^every (?:(\d+) )?(second|minute|hour|day|week)s?$/,
    crontab: /^crontab (\S+) (\S+) (\S+) (\S+) (\S+)$/,
    cron: /^(?:cron )?((?:[\d*].*|@\w+))$/,
    solar: /^solar (\S+) (\S+) (\S+)$/,
    clocked: /^clocked (\S+)$/,
  };

  const pad = number => String(number).padStart(2, "0");

  function localText(text) {
    const moment = new Date(text);
    if (Number.isNaN(moment.getTime())) return "";
    const day = `${moment.getFullYear()}-${pad(moment.getMonth() + 1)}-${pad(moment.getDate())}`;
    return `${day}T${pad(moment.getHours())}:${pad(moment.getMinutes())}:${pad(moment.getSeconds())}`;
  }

  function written(kind, parts) {
    if (kind === "every") return `every ${parts[0]} ${parts[1]}${parts[0] === "1" ? "" : "s"}`;
    if (kind === "clocked") {
      const moment = new Date(parts[0]);
      return Number.isNaN(moment.getTime()) ? "clocked " : `clocked ${moment.toISOString().replace(".000Z", "Z")}`;
    }
    return `${kind} ${parts.join(" ")}`;
  }

  function read(kind, found) {
    if (kind === "every") return [found[1] || "1", found[2]];
    return kind === "clocked" ? [localText(found[1])] : found.slice(1);
  }

  function element(name, text, className) {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function show(box, look) {
    box.replaceChildren();
    if (look.error) box.append(element("p", look.error, "task-refusal"));
    if (!look.words) return;
    const runs = element("ol", "", "task-runs");
    for (const run of look.runs) {
      const row = document.createElement("li"), time = element("time", run.text);
      time.dateTime = run.at;
      row.append(time, " ", element("span", run.away, "task-quiet"));
      runs.append(row);
    }
    box.append(element("p", look.words, "task-words"), element("p", look.title, "task-quiet"), runs);
  }

  function preview(form, schedule) {
    const box = schedule.querySelector("[data-preview]"), task = form.elements.task;
    const note = element("p", "", "task-warning");
    note.setAttribute("aria-live", "polite");
    if (task) task.closest(".flex-container").after(note);
    let waiting = 0, asked = null;

    async function ask() {
      if (asked) asked.abort();
      asked = new AbortController();
      try {
        const answer = await fetch(schedule.dataset.previewUrl, {
          method: "POST",
          body: new FormData(form),
          headers: { Accept: "application/json" },
          signal: asked.signal,
        });
        if (!answer.ok) return;
        const look = await answer.json();
        show(box, look);
        note.textContent = look.warning;
      } catch (error) {
        if (error.name !== "AbortError" && !(error instanceof TypeError)) throw error;
      }
    }

    return () => {
      clearTimeout(waiting);
      waiting = setTimeout(ask, PAUSE);
    };
  }

  function chooser(schedule, changed) {
    const line = schedule.querySelector("input[name=schedule]"), kinds = schedule.querySelector("[data-kind]");
    const groups = [...schedule.querySelectorAll("[data-fields]")];
    const partsOf = group => [...group.querySelectorAll("[data-part]")];
    const groupOf = kind => groups.find(group => group.dataset.fields === kind);

    function open(kind) {
      kinds.value = kind;
      for (const group of groups) group.hidden = group.dataset.fields !== kind;
    }

    function write() {
      const group = groupOf(kinds.value);
      if (!group) return;
      line.value = written(kinds.value, partsOf(group).map(part => part.value.trim()));
      changed();
    }

    function follow() {
      for (const [kind, shape] of Object.entries(SHAPES)) {
        const found = shape.exec(line.value.trim());
        if (!found) continue;
        const parts = read(kind, found);
        partsOf(groupOf(kind)).forEach((part, index) => { part.value = parts[index]; });
        open(kind);
        return;
      }
      open("");
    }

    kinds.addEventListener("change", () => {
      open(kinds.value);
      write();
    });
    for (const group of groups) group.addEventListener("input", write);
    line.addEventListener("input", follow);
    schedule.querySelector(".task-chooser").hidden = false;
    follow();
  }

  function start() {
    const schedule = document.querySelector(".task-schedule");
    if (!schedule) return;
    const form = schedule.closest("form"), changed = preview(form, schedule);
    // Not hidden but gone: it is the first button of the form, which the key Enter presses.
    schedule.querySelector("[data-look]").remove();
    chooser(schedule, changed);
    for (const name of ["schedule", "timezone", "start_at_0", "start_at_1", "end_at_0", "end_at_1", "one_off", "task"]) {
      const field = form.elements[name];
      if (!field) continue;
      field.addEventListener("input", changed);
      field.addEventListener("change", changed);
      // Django's calendar and clock tell of themselves with this alone.
      field.addEventListener("focus", changed);
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
}
