CREATE TABLE data.contacts (
	"contact_id" text COLLATE "C" NOT NULL,
	"customer_id" text COLLATE "C" NOT NULL DEFAULT '',
	"given_name" text COLLATE "C" NOT NULL DEFAULT '',
	"family_name" text COLLATE "C" NOT NULL DEFAULT '',
	"job_title" text COLLATE "C",
	"email" text COLLATE "C",
	"phone" text COLLATE "C",
	"is_primary" boolean NOT NULL DEFAULT false,
	"language_code" text COLLATE "C",
	"source" text COLLATE "C" NOT NULL DEFAULT '',
	"source_id" text COLLATE "C" NOT NULL DEFAULT '',
	"create_time" timestamp with time zone NOT NULL DEFAULT now(),
	"update_time" timestamp with time zone NOT NULL DEFAULT now(),
	"etag" bigint NOT NULL DEFAULT 0,
	PRIMARY KEY ("contact_id")
);
CREATE INDEX ON data.contacts ("customer_id");
