import { useSession } from "../current";
import { href } from "../place";
import { Nowhere } from "../shell/states";
import { PageHead } from "../ui/head";
import { Tabs } from "../ui/tabs";
import { ConsumerPlan, ConsumerPlans } from "./consumers";
import { EditPlan, NewPlan } from "./edit";
import { PlanHistory } from "./history";
import { PlanList } from "./list";

/** The pages about plans: what consumers may use. */
export default function PlanPages({ place }: { place: readonly string[] }) {
  const [, part, id] = place;
  if (part === "new") return <NewPlan />;
  if (part === "plan" && id !== undefined) return <EditPlan key={id} id={id} />;
  if (part === "consumers" && id !== undefined) return <ConsumerPlan key={id} id={id} />;
  if (part === undefined) return <Overview here={href("plans")} />;
  if (part === "consumers" || part === "history") return <Overview here={href("plans", part)} />;
  return <Nowhere />;
}

function Overview({ here }: { here: string }) {
  const session = useSession();
  const consumers = href("plans", "consumers");
  const history = href("plans", "history");
  return (
    <>
      <PageHead
        title="Plans"
        about="What consumers may use: rates, places at one time, and quotas. Every change is one revision, in force within 5 seconds."
        actions={
          session.permits("plans.write") ? (
            <a className="button primary" href={href("plans", "new")}>
              New plan
            </a>
          ) : null
        }
      />
      <Tabs
        label="Parts of plans"
        tabs={[
          [href("plans"), "Plans"],
          [consumers, "Consumers"],
          [history, "History"],
        ]}
        here={here}
      />
      {here === consumers ? <ConsumerPlans /> : here === history ? <PlanHistory /> : <PlanList />}
    </>
  );
}
