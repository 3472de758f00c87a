import type { DescService } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  createClient,
  type Client,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { Callers, type Caller } from "@gen/penstock/hub/v1/caller_pb";

/** The token endpoint refused, for the reason in the message. */
export class SignInRefused extends Error {}

interface Token {
  value: string;
  /** When it must be replaced, in milliseconds of the page's clock. */
  stale: number;
}

/**
 * A signed-in consumer. Only this object holds its secret and its token: dropping it, or reloading
 * the page, signs out.
 */
export class Session {
  readonly #clients = new Map<DescService, unknown>();
  readonly #transport: Transport;
  #caller: Caller | undefined;
  readonly #secret: string;
  #token: Token;
  #renewal: Promise<Token> | undefined;

  /**
   * `ended` is called when the hub no longer accepts the secret. Throws SignInRefused, and
   * ConnectError if the hub does not say who calls.
   */
  static async open(consumer: string, secret: string, ended: () => void): Promise<Session> {
    const token = await askToken(consumer, secret);
    const session = new Session(consumer, secret, token, ended);
    await session.refresh();
    return session;
  }

  private constructor(
    readonly consumer: string,
    secret: string,
    token: Token,
    private readonly ended: () => void,
  ) {
    this.#secret = secret;
    this.#token = token;
    this.#transport = createGrpcWebTransport({
      baseUrl: location.origin,
      defaultTimeoutMs: 60_000,
      interceptors: [this.#authorize],
    });
  }

  /** Calls a service in this session; pages bring the services that only they use. */
  client<T extends DescService>(service: T): Client<T> {
    let made = this.#clients.get(service) as Client<T> | undefined;
    if (made === undefined) {
      made = createClient(service, this.#transport);
      this.#clients.set(service, made);
    }
    return made;
  }

  /** The consumer as the hub knew it at the sign-in, or at the last `refresh`. */
  get caller(): Caller {
    if (this.#caller === undefined) throw new Error("the session is not open yet");
    return this.#caller;
  }

  /** Whether the user has a permission on the hub itself. The hub decides; this only guides. */
  permits(permission: string): boolean {
    return this.caller.permissions.includes(permission);
  }

  /** Asks anew what the user may do. */
  async refresh(): Promise<void> {
    this.#caller = await this.client(Callers).getCaller({});
  }

  /** Adds the token to a call; a refused token is replaced once. */
  readonly #authorize: Interceptor = (next) => async (request) => {
    const token = await this.#current();
    request.header.set("authorization", `Bearer ${token.value}`);
    try {
      return await next(request);
    } catch (error) {
      if (ConnectError.from(error).code !== Code.Unauthenticated) throw error;
      // Signing keys and credentials may be revoked before their time.
      if (this.#token === token) this.#token = { ...token, stale: 0 };
      request.header.set("authorization", `Bearer ${(await this.#current()).value}`);
      return await next(request);
    }
  };

  async #current(): Promise<Token> {
    if (performance.now() < this.#token.stale) return this.#token;
    this.#renewal ??= askToken(this.consumer, this.#secret).finally(() => {
      this.#renewal = undefined;
    });
    try {
      this.#token = await this.#renewal;
    } catch (error) {
      if (error instanceof SignInRefused) this.ended();
      throw error;
    }
    return this.#token;
  }
}

async function askToken(consumer: string, secret: string): Promise<Token> {
  const body = new URLSearchParams({
    grant_type: "client_credentials",
    client_id: consumer,
    client_secret: secret,
  });
  const asked = performance.now();
  const reply = await fetch("/oauth2/token", {
    method: "POST",
    body,
    credentials: "omit",
    cache: "no-store",
  });
  const document: unknown = await reply.json().catch(() => null);
  if (reply.ok && isIssued(document)) {
    // Replace it in time, but not so early that every call requests a short-lived one.
    const seconds = Math.max(document.expires_in - 30, document.expires_in / 2);
    return { value: document.access_token, stale: asked + seconds * 1000 };
  }
  if (reply.status === 400 || reply.status === 401) throw new SignInRefused(told(document));
  throw new Error(`The hub answered with status ${reply.status}. Try again in a moment.`);
}

function isIssued(document: unknown): document is { access_token: string; expires_in: number } {
  const found = document as { access_token?: unknown; expires_in?: unknown } | null;
  return typeof found?.access_token === "string" && typeof found.expires_in === "number";
}

function told(document: unknown): string {
  const found = document as { error_description?: unknown } | null;
  const text = found?.error_description;
  return typeof text === "string" ? text : "the hub did not say why";
}
