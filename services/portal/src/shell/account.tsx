import { Datasets, type Dataset } from "@gen/penstock/hub/v1/datasets_pb";
import { useSession } from "../current";
import { useLoaded } from "../loading";
import { href } from "../place";
import { Choice } from "../ui/field";
import { PageHead } from "../ui/head";
import { Table, type Column } from "../ui/table";
import { Facts, Shown } from "../ui/told";
import { chooseTheme, THEMES, useTheme } from "./theme";

const COLUMNS: ReadonlyArray<Column<Dataset>> = [
  { title: "Dataset", cell: (dataset) => <strong>{dataset.name}</strong> },
  { title: "You may", cell: (dataset) => dataset.actions.join(", ") },
  { title: "Fields you see", numeric: true, cell: (dataset) => dataset.fields.length },
];

/** Who is signed in, and what it may do. */
export default function Account() {
  const session = useSession();
  const theme = useTheme();
  const datasets = useLoaded((signal) => session.client(Datasets).listDatasets({}, { signal }), [session]);
  const { consumerId, roles, permissions, plan } = session.caller;
  return (
    <>
      <PageHead title="Account" about="The consumer that is signed in, and what it may do." />
      <Facts
        of={[
          ["Consumer", <strong>{consumerId}</strong>],
          ["Roles", roles.join(", ") || "none"],
          ["Plan", plan || "none: nothing is limited"],
          ["Permissions on the hub", permissions.join(", ") || "none"],
        ]}
      />
      <div className="narrow">
        <Choice
          label="Colours"
          value={theme}
          choices={THEMES}
          onChange={chooseTheme}
          hint="Kept in this browser. See all components in both."
        />
        <p>
          <a href={href("components")}>Components of the console</a>
        </p>
      </div>
      <h2>Datasets</h2>
      <Shown of={datasets}>
        {(found) => (
          <Table
            caption="Datasets, in order of name"
            columns={COLUMNS}
            rows={found.datasets}
            name={(dataset) => dataset.name}
            empty={<p>Your roles name no dataset.</p>}
          />
        )}
      </Shown>
    </>
  );
}
