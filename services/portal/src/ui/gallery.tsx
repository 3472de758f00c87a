import { timestampNow } from "@bufbuild/protobuf/wkt";
import { useId, useState, type ReactNode } from "react";
import { SECTIONS } from "../shell/sections";
import { Badge } from "./badge";
import { Button } from "./button";
import { Chart } from "./chart";
import { Dialog } from "./dialog";
import { Check, Choice, TextField } from "./field";
import { PageHead } from "./head";
import { Meter } from "./meter";
import { count, shortCount } from "./numbers";
import { Table } from "./table";
import { Tabs } from "./tabs";
import { Tiles } from "./tiles";
import { When } from "./time";
import { Facts, Loading, ProblemLine } from "./told";

/** The components of the console, each with its purpose and live: the place to look before making a
 * new one. */
export default function Gallery() {
  return (
    <>
      <PageHead
        title="Components"
        about="What pages of the console are made of. Their colours and sizes are the tokens of ui/tokens.css; their source stands in services/portal/src/ui."
      />
      <Part name="Button" when="Acts on the page. One primary button a page; danger for what cannot be undone; a busy one cannot be pressed.">
        <div className="actions">
          <Button kind="primary">Primary</Button>
          <Button>Secondary</Button>
          <Button kind="danger">Danger</Button>
          <Button kind="plain">Plain</Button>
          <Button busy>Busy</Button>
        </div>
      </Part>
      <Part name="Badge" when="Says a state in one word, whose colour only helps to find it.">
        <div className="actions">
          <Badge tone="good">delivered</Badge>
          <Badge tone="waiting">pending</Badge>
          <Badge tone="bad">dead</Badge>
          <Badge tone="muted">paused</Badge>
        </div>
      </Part>
      <Part name="TextField, Choice, Check" when="Ask for values. Each has a label, and may have a hint and the hub's error, which screen readers read with it.">
        <Fields />
      </Part>
      <Part name="Dialog" when="Asks before an action, or shows a secret once. Escape closes it; the focus returns.">
        <Opener />
      </Part>
      <Part name="Table" when="Rows of equal things. On narrow screens each row is a card. Without rows it says why there are none.">
        <Table
          caption="Sections of the console"
          columns={[
            { title: "Section", cell: (section) => section.title },
            { title: "Needs", cell: (section) => section.needs.join(" or ") || "nothing" },
          ]}
          rows={SECTIONS}
          name={(section) => section.path}
          empty={null}
        />
        <Table caption="" columns={[]} rows={[]} name={String} empty={<p>There are no rows yet.</p>} />
      </Part>
      <Part name="Facts" when="Names and values of one thing.">
        <Facts of={[["Owner", "crm"], ["Created", <When key="t" at={timestampNow()} />], ["Rate", "no limit"]]} />
      </Part>
      <Part name="Tiles" when="Single figures side by side; one that somebody should look at is marked.">
        <Tiles
          label="Examples"
          of={[
            { name: "Calls", value: "12,480" },
            { name: "Errors", value: "3.1 %", more: "target 1 %", bad: true },
            { name: "Records", value: "1,204,330" },
          ]}
        />
      </Part>
      <Part name="Meter" when="How much of a limit is used. It turns at 80 % and at 100 %.">
        <Meter label="Calls a day" used={420} limit={1000}>420 of 1,000 used</Meter>
        <Meter label="Records a day" used={46_000} limit={50_000}>46,000 of 50,000 used</Meter>
        <Meter label="Bytes a month" used={1100} limit={1000}>1,100 of 1,000 used; it is soft</Meter>
      </Part>
      <Part name="Chart" when="Lines over time. Its values are also in a table and a file, so that nobody needs to see or to draw.">
        <Chart title="Example" times={TIMES} lines={LINES} format={count} short={shortCount} />
      </Part>
      <Part name="Tabs" when="Links between the parts of a page; each part has an address.">
        <Tabs label="Example" here="#/components" tabs={[["#/components", "This part"], ["#/account", "Another"]]} />
      </Part>
      <Part name="PageHead" when="The top of every page: its heading, one sentence on its purpose, and its actions. It stands above this list, too.">
        <p className="quiet">See the top of this page.</p>
      </Part>
      <Part name="When" when="A time in the user's zone; hovering shows its exact form.">
        <p><When at={timestampNow()} /></p>
      </Part>
      <Part name="Loading, ProblemLine" when="What stands where there is nothing to show yet, and where a call failed: why, and the id that support needs.">
        <Loading />
        <ProblemLine
          problem={{
            message: "the database does not answer",
            reason: "DATABASE_UNAVAILABLE",
            requestId: "0f0e5b2c-6a54-4c2e-9f3a-2f0f7f6f1a11",
            fields: new Map(),
          }}
        />
      </Part>
    </>
  );
}

const TIMES = Array.from({ length: 48 }, (_, i) => 1_767_225_600 + i * 3600);
const LINES = [
  { name: "crm", values: TIMES.map((_, i) => Math.round(60 + 40 * Math.sin(i / 4))) },
  { name: "bi", values: TIMES.map((_, i) => Math.round(30 + 20 * Math.cos(i / 7))) },
];

function Part({ name, when, children }: { name: string; when: string; children: ReactNode }) {
  const id = useId();
  return (
    <section className="card" aria-labelledby={id}>
      <h2 id={id}>{name}</h2>
      <p className="quiet">{when}</p>
      {children}
    </section>
  );
}

function Fields() {
  const [text, setText] = useState("gold");
  const [per, setPer] = useState("day");
  const [soft, setSoft] = useState(true);
  return (
    <div className="columns">
      <TextField label="Plan" value={text} onChange={setText} hint="Lower-case letters and digits." />
      <TextField label="Limit" value="-1" onChange={() => undefined} error="must be 0 or more" />
      <Choice
        label="Period"
        value={per}
        onChange={setPer}
        choices={[["day", "a day"], ["month", "a month"]]}
      />
      <Check label="Soft: counts, and refuses nothing" checked={soft} onChange={setSoft} />
    </div>
  );
}

function Opener() {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button onClick={() => setOpen(true)}>Open a dialog …</Button>
      {open ? (
        <Dialog title="Delete the example" onClose={() => setOpen(false)}>
          <p>Nothing is deleted.</p>
          <div className="actions">
            <Button kind="primary" onClick={() => setOpen(false)}>Close</Button>
          </div>
        </Dialog>
      ) : null}
    </>
  );
}
