CREATE TABLE data.interactions (
	"interaction_id" text COLLATE "C" NOT NULL,
	"customer_id" text COLLATE "C" NOT NULL DEFAULT '',
	"contact_id" text COLLATE "C",
	"channel" text COLLATE "C" NOT NULL DEFAULT 'CHANNEL_UNSPECIFIED',
	"occur_time" timestamp with time zone,
	"subject" text COLLATE "C" NOT NULL DEFAULT '',
	"body" text COLLATE "C",
	"duration_seconds" integer,
	"sentiment" double precision,
	"source" text COLLATE "C" NOT NULL DEFAULT '',
	"source_id" text COLLATE "C" NOT NULL DEFAULT '',
	"create_time" timestamp with time zone NOT NULL DEFAULT now(),
	"update_time" timestamp with time zone NOT NULL DEFAULT now(),
	"etag" bigint NOT NULL DEFAULT 0,
	PRIMARY KEY ("interaction_id")
);
CREATE INDEX ON data.interactions ("customer_id");
CREATE INDEX ON data.interactions ("contact_id");
