import { useEffect, useId, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import { useDark } from "../shell/theme";
import { Button } from "./button";
import { csvOf, saveFile } from "./save";
import { Table, type Column } from "./table";

export interface Line {
  name: string;
  /** A value for each time. */
  values: readonly number[];
}

export interface ChartProps {
  title: string;
  /** Seconds since 1970, ascending, without gaps. */
  times: readonly number[];
  lines: readonly Line[];
  /** A value with all its digits, and one for an axis. */
  format: (value: number) => string;
  short: (value: number) => string;
  /** Called with the whole seconds of a range that the user has drawn. */
  onRange?: (from: number, to: number) => void;
}

const HEIGHT = 190;
const EXACT = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/**
 * Lines over time. Drawing across it chooses a range; its values are also in a table and a file, so
 * that nobody needs to see or to draw.
 */
export function Chart(props: ChartProps) {
  const { title, times, lines, format } = props;
  const id = useId();
  const [at, setAt] = useState<number>();
  const [tabled, setTabled] = useState(false);
  const shown = at === undefined ? undefined : times[at];
  return (
    <figure className="chart card" aria-labelledby={id}>
      <div className="head">
        <h3 id={id}>{title}</h3>
        <div className="actions">
          <Button kind="plain" expanded={tabled} onClick={() => setTabled(!tabled)}>
            Table
          </Button>
          <Button kind="plain" onClick={() => save(props)}>
            CSV
          </Button>
        </div>
      </div>
      <Canvas {...props} onHover={setAt} />
      <div className="legend">
        {lines.map((line, i) => (
          <span key={line.name}>
            <i className={`key series-${(i % 6) + 1}`} /> {line.name}
            {at === undefined ? null : <strong> {format(line.values[at] ?? 0)}</strong>}
          </span>
        ))}
        <span className="quiet">{shown === undefined ? "" : EXACT.format(shown * 1000)}</span>
      </div>
      {tabled ? <Values {...props} /> : null}
    </figure>
  );
}

/** The newest first, as the end of a range is what people look for. */
function Values({ title, times, lines, format }: ChartProps) {
  const rows = useMemo(() => times.map((_, i) => i).reverse(), [times]);
  const columns: Array<Column<number>> = [
    { title: "Time", cell: (i) => EXACT.format((times[i] ?? 0) * 1000) },
    ...lines.map((line) => ({
      title: line.name,
      numeric: true,
      cell: (i: number) => format(line.values[i] ?? 0),
    })),
  ];
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={`${title} as a table`}>
      <Table caption={title} columns={columns} rows={rows} name={String} empty={<p>No values.</p>} />
    </div>
  );
}

function save({ title, times, lines }: ChartProps): void {
  const head = ["time", ...lines.map((line) => line.name)];
  const rows = times.map((time, i) => [
    new Date(time * 1000).toISOString(),
    ...lines.map((line) => line.values[i] ?? 0),
  ]);
  const name = title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  saveFile(`${name}.csv`, "text/csv", csvOf([head, ...rows]));
}

function Canvas(props: ChartProps & { onHover: (at: number | undefined) => void }) {
  const { title, times, lines } = props;
  const place = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  latest.current = props;
  const dark = useDark();
  const shape = lines.map((line) => line.name).join("\n");
  const plot = useRef<uPlot>(undefined);
  // Colours and the number of lines are those of the making; values and sizes change later.
  useEffect(() => {
    const target = place.current;
    if (target === null) return;
    const made = new uPlot(options(target.clientWidth, latest), data(latest.current), target);
    plot.current = made;
    const resized = new ResizeObserver(() => {
      made.setSize({ width: target.clientWidth, height: HEIGHT });
    });
    resized.observe(target);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [dark, shape]);
  useEffect(() => plot.current?.setData(data(latest.current)), [times, lines]);
  const said = `${title} over time: ${lines.map((line) => line.name).join(", ")}. The button Table shows all values.`;
  return <div ref={place} className="canvas" role="img" aria-label={said} />;
}

function data({ times, lines }: ChartProps): uPlot.AlignedData {
  return [times as number[], ...lines.map((line) => line.values as number[])];
}

type Latest = { current: ChartProps & { onHover: (at: number | undefined) => void } };

function options(width: number, latest: Latest): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const probe = document.body.appendChild(document.createElement("i"));
  // A canvas does not know light-dark(): ask an element what a token is now.
  const colour = (token: string): string => {
    probe.style.color = `var(${token})`;
    return getComputedStyle(probe).color;
  };
  const axis = {
    stroke: colour("--quiet"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1, size: 4 },
    font: `12px ${style.getPropertyValue("--sans")}`,
  };
  const made: uPlot.Options = {
    width,
    height: HEIGHT,
    legend: { show: false },
    padding: [8, 20, 0, 0],
    cursor: {
      y: false,
      points: { size: 6 },
      drag: { x: latest.current.onRange !== undefined, y: false, setScale: false },
    },
    scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
    axes: [
      { ...axis, values: (_, splits) => splits.map(tick(splits)), space: 64, size: 30 },
      { ...axis, values: (_, splits) => splits.map(latest.current.short), size: 58 },
    ],
    series: [
      {},
      ...latest.current.lines.map((line, i) => ({
        label: line.name,
        stroke: colour(`--series-${(i % 6) + 1}`),
        width: 1.75,
        points: { show: latest.current.times.length < 3, size: 5 },
      })),
    ],
    hooks: {
      setCursor: [(plot) => latest.current.onHover(plot.cursor.idx ?? undefined)],
      setSelect: [
        (plot) => {
          const { left, width: wide } = plot.select;
          if (wide < 4) return;
          const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + wide, "x")];
          latest.current.onRange?.(Math.floor(from), Math.ceil(to));
          plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        },
      ],
    },
  };
  probe.remove();
  return made;
}

/** Clock times within days, and dates beyond. */
function tick(splits: readonly number[]): (second: number) => string {
  const step = (splits[1] ?? 0) - (splits[0] ?? 0);
  return (second) => {
    const date = new Date(second * 1000);
    const midnight = date.getHours() === 0 && date.getMinutes() === 0;
    return step >= 86_400 || midnight ? DAY.format(date) : CLOCK.format(date);
  };
}
