// Follows a feed with npm's EventSource, which reconnects by itself, until the key in the second
// argument has come, or the hub has ended it. Prints a line once it is open, and then what arrived,
// as one JSON document.
import { EventSource } from "eventsource";

const [url, last] = process.argv.slice(2);
const told = { messages: [], connections: 0, closed: false };
const source = new EventSource(url);

function finish() {
  source.close();
  process.stdout.write(JSON.stringify(told), () => process.exit(0));
}

source.onopen = () => {
  if (!told.connections++) process.stdout.write("open\n");
};
source.onmessage = (event) => {
  const changes = JSON.parse(event.data).changes;
  told.messages.push({ id: event.lastEventId, changes });
  if (changes.some((change) => change.key === last)) finish();
};
source.onerror = (event) => {
  if (source.readyState === EventSource.CLOSED) {
    told.closed = true;
    told.status = event.code;
    finish();
  }
};
