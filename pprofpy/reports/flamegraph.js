// Zoom, search and details for a flame graph. Works on what the SVG already shows; handles names only as text.
"use strict";
(() => {
  const svg = document.documentElement;
  const holder = document.getElementById("frames");
  const details = document.getElementById("details");
  const margin = 3, tiny = 1e-7;

  // Every frame: its place in shares of the whole picture, as drawn.
  const frames = Array.from(holder.children, (element) => {
    const [title, rect, label] = element.children;
    const [name, ...rest] = title.textContent.split("\n");
    return {
      element, rect, label, name, rest,
      left: parseFloat(rect.getAttribute("x")) / 100,
      width: parseFloat(rect.getAttribute("width")) / 100,
      y: parseFloat(rect.getAttribute("y")),
    };
  });
  const root = frames[0];
  const grows = frames.length > 1 && frames[1].y > root.y ? 1 : -1; // towards the leaves, on the screen
  let zoomed = root;
  let found = null; // the regular expression searched for, if any

  const isAbove = (outer, inner) =>
    (inner.y - outer.y) * grows > 0 &&
    outer.left <= inner.left + tiny && outer.left + outer.width >= inner.left + inner.width - tiny;

  function measure() {
    const probe = document.createElementNS(svg.namespaceURI, "text");
    probe.textContent = "m".repeat(50);
    holder.append(probe);
    const width = probe.getComputedTextLength() / 50;
    probe.remove();
    return width || 7.2;
  }

  function draw() {
    const room = svg.getBoundingClientRect().width || 1200;
    const character = measure();
    for (const frame of frames) {
      const isOuter = frame === zoomed || isAbove(frame, zoomed);
      const left = isOuter ? 0 : (frame.left - zoomed.left) / zoomed.width;
      const width = isOuter ? 1 : frame.width / zoomed.width;
      const shown = isOuter || isAbove(zoomed, frame);
      frame.element.classList.toggle("hidden", !shown);
      frame.element.classList.toggle("above", isOuter && frame !== zoomed);
      if (!shown) continue;
      frame.rect.setAttribute("x", `${100 * left}%`);
      frame.rect.setAttribute("width", `${100 * width}%`);
      frame.label.setAttribute("x", `${100 * left}%`);
      const fits = Math.floor((width * room - 2 * margin) / character);
      frame.label.textContent =
        frame.name.length <= fits ? frame.name : fits >= 3 ? `${frame.name.slice(0, fits - 1)}…` : "";
    }
  }

  function zoom(frame) {
    zoomed = frame;
    draw();
    showMatches();
    reset.hidden = zoomed === root;
  }

  // A stack counts once however many of its frames match: of nested matches, only the outermost is added up.
  function showMatches() {
    holder.classList.toggle("searching", found !== null);
    const matches = frames.filter((frame) => {
      const isMatch = found !== null && frame !== root && found.test(frame.name);
      frame.element.classList.toggle("match", isMatch);
      return isMatch && (zoomed === root || frame === zoomed || isAbove(zoomed, frame) || isAbove(frame, zoomed));
    });
    matches.sort((a, b) => a.left - b.left || b.width - a.width);
    const start = zoomed.left, stop = zoomed.left + zoomed.width;
    let end = start, sum = 0;
    for (const match of matches) {
      const right = Math.min(match.left + match.width, stop);
      const left = Math.max(match.left, end);
      if (right > left + tiny) {
        sum += right - left;
        end = right;
      }
    }
    result.textContent = found === null ? "" : `${(100 * sum / zoomed.width).toFixed(2)} % matched`;
  }

  function search(pattern) {
    found = null;
    box.classList.remove("wrong");
    try {
      if (pattern) found = new RegExp(pattern, /[A-Z]/.test(pattern) ? "" : "i");
    } catch {
      box.classList.add("wrong"); // not a regular expression yet: perhaps the next key makes it one
    }
    showMatches();
  }

  function tell(frame) {
    details.textContent = frame ? [frame.name, ...frame.rest].join("   ") : " ";
    if (frame && zoomed !== root && frame !== zoomed && frame.width < zoomed.width) {
      details.textContent += `, ${(100 * frame.width / zoomed.width).toFixed(2)} % of the zoomed frame`;
    }
  }

  // The tools are made here: where no script runs, they would be of no use.
  const page = "http://www.w3.org/1999/xhtml";
  const make = (tag, attributes) => {
    const element = document.createElementNS(page, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const foreign = document.createElementNS(svg.namespaceURI, "foreignObject");
  const tools = make("div", { id: "tools" });
  const result = make("output", { id: "result" });
  const box = make("input", { id: "search", type: "search", placeholder: "search (regex)  /", spellcheck: "false" });
  const reset = make("button", { id: "reset", type: "button" });
  reset.textContent = "reset zoom";
  reset.hidden = true;
  tools.append(result, box, reset);
  foreign.append(tools);
  foreign.setAttribute("x", "30%");
  foreign.setAttribute("y", "8");
  foreign.setAttribute("width", "calc(70% - 10px)");
  foreign.setAttribute("height", "30");
  svg.append(foreign);

  // As wide as the window, from now on.
  const narrowest = 320;
  function fit() {
    svg.setAttribute("width", Math.max(window.innerWidth - 1, narrowest));
    draw();
  }

  const byElement = new Map(frames.map((frame) => [frame.element, frame]));
  const frameOf = (event) => byElement.get(event.target.closest("#frames > g"));
  holder.addEventListener("click", (event) => {
    const frame = frameOf(event);
    if (frame) zoom(frame);
  });
  holder.addEventListener("mouseover", (event) => tell(frameOf(event)));
  holder.addEventListener("mouseleave", () => tell(null));
  reset.addEventListener("click", () => zoom(root));
  box.addEventListener("input", () => search(box.value));
  window.addEventListener("resize", fit);
  window.addEventListener("keydown", (event) => {
    const typing = event.target === box;
    if ((event.key === "/" && !typing) || (event.key === "f" && (event.ctrlKey || event.metaKey))) {
      event.preventDefault();
      box.focus();
      box.select();
    } else if (event.key === "Escape" && typing && box.value) {
      box.value = "";
      search("");
    } else if (event.key === "Escape") {
      box.blur();
      zoom(root);
    } else if (event.key === "Enter" && !typing) {
      const frame = byElement.get(document.activeElement);
      if (frame) zoom(frame);
    }
  });
  if (root) fit();
})();
