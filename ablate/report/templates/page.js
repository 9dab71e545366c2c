"use strict";
(() => {
  const NUMBER = /^[<>±\s]*([+-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?)/;
  const DATE = /^\d{4}-\d\d-\d\dT\S+/;
  const DURATION = /^(?:(\d+) h )?(?:(\d+) min|(\d+) s)\b/;
  const PARTS = /(\d+(?:\.\d+)?(?:e[+-]?\d+)?)/; // what is between numbers, and numbers
  const NEAREST = 6;
  const SLACK = 0.5, GRAIN = 0.1; // of places in a drawing: how far an end may be off, how exact they are

  // tables: a click on a head sorts its rows, group by group; the third one brings back their order
  const key = cell => cell.innerText.trim().replaceAll("\u2212", "-");
  function value(text) {
    if (DATE.test(text)) return Date.parse(DATE.exec(text)[0]);
    const time = DURATION.exec(text);
    if (time) return 3600 * (time[1] ?? 0) + 60 * (time[2] ?? 0) + 1 * (time[3] ?? 0);
    const found = NUMBER.exec(text);
    return found ? Number(found[1].replaceAll(",", "")) : NaN;
  }

  function compareWords(one, other) {
    const [first, second] = [one.split(PARTS), other.split(PARTS)];
    for (let i = 0; i < Math.min(first.length, second.length); i++) {
      const order = i % 2 ? first[i] - second[i] : first[i].localeCompare(second[i]);
      if (order) return order;
    }
    return first.length - second.length;
  }

  function sort(body, rows, column, order) {
    const text = row => row.cells.length > column ? key(row.cells[column]) : "";
    const filled = rows.filter(text);
    const areNumbers = 2 * filled.filter(row => !Number.isNaN(value(text(row)))).length > filled.length;
    // what failed, or was not measured, is last in both directions
    const known = filled.filter(row => !areNumbers || !Number.isNaN(value(text(row))));
    known.sort((one, other) => areNumbers
      ? value(text(one)) - value(text(other))
      : compareWords(text(one), text(other)));
    if (order === "descending") known.reverse();
    body.append(...(order ? [...known, ...rows.filter(row => !known.includes(row))] : rows));
  }

  for (const table of document.querySelectorAll("main table")) {
    const heads = [...table.tHead.rows[0].cells];
    const bodies = [...table.tBodies].map(body => [body, [...body.rows].filter(row => !row.classList.contains("group"))]);
    if (!bodies.some(([, rows]) => rows.length > 1)) continue;
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const order = {ascending: "descending", descending: null}[head.getAttribute("aria-sort")];
        const next = order === undefined ? "ascending" : order;
        heads.forEach(other => other.removeAttribute("aria-sort"));
        if (next) head.setAttribute("aria-sort", next);
        bodies.forEach(([body, rows]) => sort(body, rows, column, next));
      });
    });
  }

  // flipped questions: what is typed hides those that lack it
  for (const box of document.querySelectorAll("[data-search]")) {
    const rows = [...box.querySelectorAll("tbody tr:not(.group)")];
    const texts = rows.map(row => row.textContent.toLowerCase());
    const input = document.createElement("input");
    input.type = "search";
    const label = document.createElement("label");
    label.className = "search";
    label.append(`${box.dataset.search} `, input);
    const count = document.createElement("output");
    count.className = "search";
    box.querySelector("p").after(label, count);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(word => word);
      rows.forEach((row, i) => { row.hidden = !words.every(word => texts[i].includes(word)); });
      count.value = words.length ? `${rows.filter(row => !row.hidden).length} / ${rows.length}` : "";
      for (const sheet of box.querySelectorAll(".flips")) {
        sheet.hidden = ![...sheet.querySelectorAll("tbody tr:not(.group)")].some(row => !row.hidden);
      }
    });
  }

  // curves: values under the pointer, or at the place that the arrow keys lead to
  const scale = text => {
    const [low, high, begin, end] = text.split(" ").map(Number);
    const isLog = text.endsWith("log");
    const between = (a, b, part) => isLog ? a * (b / a) ** part : a + (b - a) * part;
    return {begin, end, value: place => between(low, high, (place - begin) / (end - begin))};
  };

  const points = path => {
    const numbers = path.getAttribute("d").match(/-?[\d.]+/g).map(Number);
    return Array.from({length: numbers.length / 2}, (_, i) => [numbers[2 * i], numbers[2 * i + 1]]);
  };

  function heightAt(line, x) {
    const after = line.findIndex(point => point[0] >= x);
    const last = line[line.length - 1];
    if (after < 0) return x - last[0] <= SLACK ? last[1] : null;
    if (line[0][0] > x + SLACK) return null;
    if (after === 0) return line[0][1];
    const [[x0, y0], [x1, y1]] = [line[after - 1], line[after]];
    return x1 === x0 ? y1 : y0 + (y1 - y0) * (x - x0) / (x1 - x0);
  }

  function follow(svg) {
    const [across, up] = [scale(svg.dataset.x), scale(svg.dataset.y)];
    const lines = [...svg.querySelectorAll(".curve")].map(group => {
      const path = group.querySelector("path");
      return {name: group.querySelector("title").textContent, color: path.style.stroke, points: points(path)};
    });
    for (const title of svg.querySelectorAll(".curve title")) title.remove(); // two tips at once
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    tip.setAttribute("role", "status");
    svg.parentElement.append(tip);
    const cursor = document.createElementNS(svg.namespaceURI, "path");
    cursor.setAttribute("class", "cursor");
    svg.append(cursor);
    let [place, height] = [across.begin, (up.begin + up.end) / 2];

    function said(y) {
      const grain = Math.abs(up.value(y + GRAIN / 2) - up.value(y - GRAIN / 2));
      return up.value(y).toFixed(Math.min(Math.max(Math.ceil(-Math.log10(grain)), 0), 6));
    }

    function show(x, y) {
      place = Math.min(Math.max(x, across.begin), across.end);
      height = y;
      const told = lines.map(line => ({...line, y: heightAt(line.points, place)})).filter(line => line.y !== null);
      told.sort((one, other) => Math.abs(one.y - y) - Math.abs(other.y - y)).splice(NEAREST);
      told.sort((one, other) => one.y - other.y);
      cursor.setAttribute("d", `M${place} ${up.begin}V${up.end}`);
      const head = document.createElement("b");
      head.textContent = `${svg.dataset.name} ${Number(across.value(place).toPrecision(4))}`;
      tip.replaceChildren(head, ...told.map(line => {
        const row = document.createElement("span");
        row.style.borderColor = line.color;
        row.textContent = `${line.name} ${said(line.y)}`;
        return row;
      }));
      tip.classList.toggle("left", place > (across.begin + across.end) / 2);
      tip.hidden = false;
    }

    const hide = () => { tip.hidden = true; cursor.removeAttribute("d"); };
    svg.addEventListener("pointermove", event => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      show(at.x, at.y);
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.tabIndex = 0;
    svg.addEventListener("keydown", event => {
      const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      show(place + step[0] * (across.end - across.begin) / 40, height + step[1] * (up.end - up.begin) / 10);
    });
  }

  document.querySelectorAll("svg[data-x]").forEach(follow);
})();
