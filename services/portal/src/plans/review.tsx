import { useEffect, useRef, useState, type FormEvent, type ReactNode } from "react";
import { useAction } from "../loading";
import type { Problem } from "../problem";
import { Button } from "../ui/button";
import { TextField } from "../ui/field";
import { ProblemLine } from "../ui/told";

interface Props {
  back: string;
  /** Whether the user may save; `needs` is the permission for it. */
  writes: boolean;
  needs: string;
  /** Sends the change; with `validateOnly` the hub checks it and changes nothing. */
  send: (terms: { comment: string; validateOnly: boolean }) => Promise<unknown>;
  onDone: () => void;
  /** What would change, and for whom. */
  review: ReactNode;
  /** The fields, with the hub's last errors about them. */
  children: (problem: Problem | undefined) => ReactNode;
}

/** A form whose changes the hub checks first; they are saved from the review. */
export function ReviewForm({ back, writes, needs, send, onDone, review, children }: Props) {
  const action = useAction();
  const [reviewing, setReviewing] = useState(false);
  const [comment, setComment] = useState("");
  const form = useRef<HTMLFormElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    form.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
  }, [action.problem]);
  useEffect(() => {
    if (reviewing) heading.current?.focus();
  }, [reviewing]);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    void action.run(async () => {
      await send({ comment, validateOnly: !reviewing });
      if (reviewing) onDone();
      else setReviewing(true);
    });
  };
  const faulty = (action.problem?.fields.size ?? 0) > 0;
  const said = action.problem && {
    ...action.problem,
    ...(faulty && { message: "Nothing was saved. Correct the marked fields." }),
  };
  return (
    <form ref={form} className="sheet" onSubmit={submit}>
      {reviewing ? (
        <section className="state" aria-labelledby="review">
          <h2 id="review" ref={heading} tabIndex={-1}>
            Review
          </h2>
          {review}
          <TextField
            label="Comment for the history"
            value={comment}
            onChange={setComment}
            input={{ placeholder: "contract of March" }}
          />
        </section>
      ) : (
        children(action.problem)
      )}
      <ProblemLine problem={said} />
      {writes ? null : (
        <p className="note">
          You may look, and save nothing: that takes the permission <code>{needs}</code>.
        </p>
      )}
      <div className="actions">
        {reviewing ? (
          <Button onClick={() => setReviewing(false)}>Back to the form</Button>
        ) : (
          <a className="button secondary" href={back}>
            Cancel
          </a>
        )}
        {writes ? (
          <Button kind="primary" type="submit" busy={action.busy}>
            {reviewing ? "Save" : "Review …"}
          </Button>
        ) : null}
      </div>
    </form>
  );
}
