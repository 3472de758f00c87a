import { Nowhere } from "../shell/states";
import { DeadLetters } from "./dead_letters";
import { DeliveryPage } from "./delivery";
import { EditWebhook, NewWebhook } from "./editing";
import { WebhookList } from "./list";
import { Notices } from "./notices";
import { WebhookPage } from "./page";

/** The pages about webhooks. */
export default function WebhookPages({ place }: { place: readonly string[] }) {
  const [section, id, part, detail] = place;
  if (section === "dead-letters") return <DeadLetters />;
  if (section === "notices") return <Notices />;
  if (id === undefined) return <WebhookList />;
  if (id === "new") return <NewWebhook />;
  if (part === undefined || part === "settings") {
    return <WebhookPage key={id} id={id} tab={part ?? "deliveries"} />;
  }
  if (part === "edit") return <EditWebhook key={id} id={id} />;
  if (part === "deliveries" && detail !== undefined) {
    return <DeliveryPage key={detail} webhookId={id} deliveryId={detail} />;
  }
  return <Nowhere />;
}
