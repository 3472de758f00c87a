import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RequestInfoSchema } from "@gen/google/rpc/error_details_pb";

/** The error of a call, for people. */
export interface Problem {
  message: string;
  /** As in error_reason.proto; empty if the hub gave none. */
  reason: string;
  requestId: string;
  /** The faults of the request, by field. */
  fields: ReadonlyMap<string, string>;
}

export function problemOf(error: unknown): Problem {
  const failed = ConnectError.from(error);
  const fields = new Map<string, string>();
  for (const detail of failed.findDetails(BadRequestSchema)) {
    for (const { field, description } of detail.fieldViolations) fields.set(field, description);
  }
  return {
    message: message(failed),
    reason: failed.findDetails(ErrorInfoSchema)[0]?.reason ?? "",
    requestId:
      failed.findDetails(RequestInfoSchema)[0]?.requestId ??
      failed.metadata.get("x-request-id") ??
      "",
    fields,
  };
}

function message(failed: ConnectError): string {
  // Browsers describe failed connections differently, and explain little.
  if (failed.cause instanceof TypeError) return "The hub cannot be reached.";
  if (failed.code === Code.DeadlineExceeded) return "The hub did not answer in time.";
  return failed.rawMessage || "The call failed, and the hub did not say why.";
}
