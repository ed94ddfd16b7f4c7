"use strict";
(async () => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const each = (selector, act, root = document) => root.querySelectorAll(selector).forEach(act);

  const written = document.getElementById("written");
  const tell = () => {
    const seconds = Math.max(0, Math.round((Date.now() - Date.parse(written.dateTime)) / 1000));
    const [count, unit] = seconds < 120 ? [seconds, "s"] : seconds < 7200 ? [Math.round(seconds / 60), "min"] : [Math.round(seconds / 3600), "h"];
    written.textContent = `${count} ${unit} ago`;
    written.title = written.dateTime;
  };
  tell();
  setInterval(tell, 1000);
  document.getElementById("reload").onclick = () => location.reload();

  each(".table", (part) => {
    const body = part.querySelector("tbody");
    const rows = [...body.rows];
    each("th", (head, column) => {
      head.querySelector("button").onclick = () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        each("th", (other) => other.removeAttribute("aria-sort"), part);
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const value = (row) => row.cells[column].textContent;
        const missing = (row) => value(row) === "-" || value(row) === "";
        const compare = (a, b) => {
          if (missing(a) || missing(b)) return missing(a) - missing(b);
          const [x, y] = [Number(value(a)), Number(value(b))];
          const order = isNaN(x) || isNaN(y) ? value(a).localeCompare(value(b)) : x - y;
          return up ? order : -order;
        };
        body.append(...rows.sort(compare));
      };
    }, part);
    part.querySelector("input").oninput = (event) => {
      const wanted = event.target.value.toLowerCase();
      rows.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
      const left = rows.filter((row) => !row.hidden).length;
      part.querySelector("[role=status]").textContent = wanted ? `${left} of ${rows.length} rows` : "";
    };
  });

  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (char) => char.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const library = document.createElement("script");
  library.textContent = await new Response(unpacked).text();
  document.head.append(library);

  const look = {
    margin: { l: 70, r: 15, t: 10, b: 50 },
    font: { family: "system-ui, sans-serif", size: 13, color: "#1a1a1a" },
    plot_bgcolor: "white",
    hovermode: "closest",
    legend: { orientation: "h", yref: "container", y: 1, yanchor: "top" },
  };
  const axis = { gridcolor: "#e6e6e6", zeroline: false, linecolor: "#303030", automargin: true };
  const draw = (place, chart) => {
    const layout = { ...look, ...chart.layout };
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) layout[key] = { ...axis, ...layout[key] };
    const narrow = place.clientWidth < 600;
    const lines = Math.ceil(chart.data.filter((trace) => trace.showlegend !== false).length / (narrow ? 2 : 5));
    layout.margin = { ...look.margin, t: 20 + 22 * lines };
    return Plotly.react(place, chart.data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  };

  const show = (section, wanted) => {
    const figure = document.querySelector(`.profile[data-section="${section}"]`);
    const profiles = page.profiles[section];
    const chart = profiles[wanted];
    const caption = figure.querySelector("figcaption");
    if (!chart) {
      caption.textContent = "This check has no profile on this page; its numbers are in the table.";
      return;
    }
    const place = figure.querySelector(".chart");
    draw(place, chart);
    place.setAttribute("aria-label", `Losses along the path. ${chart.words}`);
    caption.textContent = chart.words;
    each(`.open[data-section="${section}"]`, (button) => {
      button.closest("tr").classList.toggle("chosen", Number(button.dataset.place) === wanted);
    });
    const next = (from, by) => {
      for (let other = from + by; other >= 0 && other < profiles.length; other += by) if (profiles[other]) return other;
      return null;
    };
    for (const [name, by] of [["before", -1], ["after", 1]]) {
      const button = figure.querySelector(`.${name}`);
      const other = next(wanted, by);
      button.setAttribute("aria-disabled", other === null);
      button.onclick = () => { if (other !== null) show(section, other); };
    }
  };

  for (const [name, chart] of Object.entries(page.charts)) {
    const place = document.getElementById(name);
    await draw(place, chart);
    const section = name.split("-")[1];
    if (page.profiles[section]) {
      place.on("plotly_click", (event) => {
        const wanted = event.points.find((point) => typeof point.customdata === "number");
        if (wanted) {
          show(section, wanted.customdata);
          document.querySelector(`.profile[data-section="${section}"]`).scrollIntoView({ block: "nearest" });
        }
      });
    }
  }
  for (const [section, profiles] of Object.entries(page.profiles)) {
    show(section, profiles.findLastIndex((chart) => chart !== null));
  }
  each(".open", (button) => { button.onclick = () => show(button.dataset.section, Number(button.dataset.place)); });
  addEventListener("beforeprint", () => each(".js-plotly-plot", (place) => Plotly.Plots.resize(place)));
  document.documentElement.dataset.ready = "yes";
})().catch((error) => {
  const trouble = document.getElementById("trouble");
  trouble.textContent = `The charts could not be drawn (${error.message}); a newer browser may do it. All numbers are in the tables.`;
  trouble.hidden = false;
  throw error;
});
