/** A gate between two walls: the product's logo. */
export function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="7" />
      <path d="M8 6v20M24 6v20M8 14h16" />
    </svg>
  );
}
