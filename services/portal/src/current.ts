import type { DescService } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { createContext, useContext } from "react";
import type { Session } from "./session";

export const CurrentSession = createContext<Session | undefined>(undefined);

/** The current user's session; only for components below the sign-in. */
export function useSession(): Session {
  const session = useContext(CurrentSession);
  if (session === undefined) throw new Error("nobody is signed in");
  return session;
}

/** Calls a service as the signed-in user. */
export function useClient<T extends DescService>(service: T): Client<T> {
  return useSession().client(service);
}
