import { Consumers, type Consumer } from "@gen/penstock/hub/v1/access_pb";
import type { Session } from "../session";

/** All consumers, in order of id. Needs access.read. */
export async function listConsumers(
  session: Session,
  signal: AbortSignal,
): Promise<readonly Consumer[]> {
  const consumers: Consumer[] = [];
  let pageToken = "";
  do {
    const request = { pageSize: 1000, pageToken };
    const page = await session.client(Consumers).listConsumers(request, { signal });
    consumers.push(...page.consumers);
    pageToken = page.nextPageToken;
  } while (pageToken);
  return consumers;
}
