import { Limits, type GetLimitsResponse, type LimitStatus } from "@gen/penstock/hub/v1/plans_pb";
import { useClient, useSession } from "../current";
import { useLoaded } from "../loading";
import { Meter } from "../ui/meter";
import { bytes, count } from "../ui/numbers";
import { When } from "../ui/time";
import { Facts, Shown } from "../ui/told";

/** What a consumer may use and has used, and when each quota will be used up at this pace. */
export function Quotas({ consumer, round }: { consumer: string; round: number }) {
  const session = useSession();
  const client = useClient(Limits);
  const own = consumer === session.consumer;
  const loaded = useLoaded(
    (signal) => client.getLimits(own ? {} : { consumer }, { signal }),
    [client, consumer, own, round],
  );
  return (
    <section aria-labelledby="limits">
      <h2 id="limits">{own ? "Your limits" : `Limits of ${consumer}`}</h2>
      {loaded.problem?.reason === "RECORD_NOT_FOUND" ? (
        <p className="note">This consumer no longer exists.</p>
      ) : (
        <Shown of={loaded}>{(found) => <Standing found={found} />}</Shown>
      )}
    </section>
  );
}

function Standing({ found }: { found: GetLimitsResponse }) {
  const { plan, timeZone, limits } = found;
  return (
    <div className="card">
      <Facts
        of={[
          ["Plan", plan || "none"],
          ["Periods begin by the clock of", timeZone],
        ]}
      />
      {limits.length === 0 ? <p>Nothing limits this consumer.</p> : null}
      <div className="columns">
        {limits.map((limit) => (
          <Limit key={limit.name} limit={limit} />
        ))}
      </div>
    </div>
  );
}

function Limit({ limit }: { limit: LimitStatus }) {
  const said = limit.what === "bytes" ? bytes : count;
  if (limit.perSecond > 0) {
    return (
      <Meter label={named(limit)} used={Number(limit.used)} limit={Number(limit.limit)}>
        {limit.perSecond} calls a second, {count(limit.limit)} at once after a pause
      </Meter>
    );
  }
  return (
    <Meter label={named(limit)} used={Number(limit.used)} limit={Number(limit.limit)}>
      {said(limit.used)} of {said(limit.limit)} {limit.per ? "used" : "under way"}
      {limit.soft ? "; it is soft: nothing is refused beyond it" : ""}
      {limit.resetTime === undefined ? null : (
        <>
          ; begins again <When at={limit.resetTime} />
        </>
      )}
      {limit.per ? <Forecast limit={limit} /> : null}
    </Meter>
  );
}

function Forecast({ limit }: { limit: LimitStatus }) {
  if (limit.used >= limit.limit) return <strong>. It is used up.</strong>;
  if (limit.exhaustedTime === undefined) return <>. At this pace it lasts.</>;
  return (
    <strong>
      . At this pace it is used up <When at={limit.exhaustedTime} />.
    </strong>
  );
}

function named({ name }: LimitStatus): string {
  const [kind = "", ...of] = name.split(":");
  const words = kind.replaceAll(/[-_]/g, " ");
  return of.length > 0 ? `${words} of ${of.join(":").replace(/^.*\./, "")}` : words;
}
