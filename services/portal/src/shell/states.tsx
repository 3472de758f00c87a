import { useSession } from "../current";
import { useAction } from "../loading";
import { href } from "../place";
import { Button } from "../ui/button";
import { ProblemLine } from "../ui/told";
import type { Section } from "./sections";

/** The page of a place that does not exist. */
export function Nowhere() {
  return (
    <>
      <h1>This page does not exist</h1>
      <p>
        <a href={href()}>Go to the first page</a>
      </p>
    </>
  );
}

/** The page of a section that the user may not see. `onChange` is called with new permissions. */
export function NoPermission(props: { section: Section; onChange: () => void }) {
  const session = useSession();
  const action = useAction();
  const { title, needs } = props.section;
  const check = (): void => {
    void action.run(async () => {
      await session.refresh();
      props.onChange();
    });
  };
  return (
    <>
      <h1>{title}</h1>
      <div className="state" role="alert">
        <h2>You may not see this page</h2>
        <p>
          It takes the permission <Names of={needs} />. Your consumer{" "}
          <strong>{session.consumer}</strong> has <Roles /> without it. An administrator can give it
          to one of your roles.
        </p>
        <Button onClick={check} busy={action.busy}>
          Check again
        </Button>
        <ProblemLine problem={action.problem} />
      </div>
    </>
  );
}

function Names({ of }: { of: readonly string[] }) {
  return (
    <>
      {of.map((name, i) => (
        <span key={name}>
          {i > 0 ? " or " : ""}
          <code>{name}</code>
        </span>
      ))}
    </>
  );
}

function Roles() {
  const { roles } = useSession().caller;
  if (roles.length === 0) return <>no roles, and so is</>;
  return (
    <>
      the {roles.length > 1 ? "roles" : "role"} <strong>{roles.join(", ")}</strong>,
    </>
  );
}
