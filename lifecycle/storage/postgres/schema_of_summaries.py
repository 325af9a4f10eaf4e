"""The part of the PostgreSQL schema for `lifecycle.storage.postgres.summary`: SQL with names to fill in."""

from typing import Final

__all__ = ["PAGE_FUNCTION", "SUMMARIES"]

PAGE_FUNCTION: Final = """\
-- A page of tasks, the newest first: those that summaries promise, and those that no summary counts. Each block that a
-- summary promises has at least one of them, unless it is cut by `below`.
create function SCHEMA.newest_tasks(
  which int, below bigint, wanted_states text[], page_size bigint, wanted_name text, since float8
) returns table (ROW) language plpgsql stable as $$
#variable_conflict use_column
declare
  part_name text := coalesce('=' || wanted_name, '');
  missing bigint := page_size;
  got bigint;
  span record;
begin
  for span in
    with promised as (
      select block, array_agg(unnested.place) as places, bool_or(p.places is null) as many from (
        select block, places from SCHEMA.summary_part
        where queue = which and name = part_name and state = any(wanted_states) and block <= (below - 1) >> BLOCK_BITS
        and (since is null or latest >= since)
      ) p left join lateral unnest(p.places) as unnested(place) on true
      group by block order by block desc limit least(page_size, 1000000000) + 1
    ), spaces as (
      select s.block + 1 as low, lead(s.block, 1, END_BLOCK) over (order by s.block) as high
      from (select block from SCHEMA.summary where made union all select -1) s
    )
    select block << BLOCK_BITS as low, (block + 1) << BLOCK_BITS as high, case when not many then places end as places
    from promised
    union all
    select low << BLOCK_BITS, high << BLOCK_BITS, null from spaces where low < high and low << BLOCK_BITS < below
    order by low desc
  loop
    if span.places is null then
      return query select FIELDS from SCHEMA.task t
      where t.seq >= span.low and t.seq < least(span.high, below) and t.queue + 0 = which
      and t.state = any(wanted_states) and (wanted_name is null or t.name = wanted_name)
      and (since is null or t.enqueued >= since) order by t.seq desc limit missing;
    else
      return query select FIELDS from SCHEMA.task t
      where t.seq = any(span.places) and t.seq < below and (since is null or t.enqueued >= since)
      order by t.seq desc limit missing;
    end if;
    get diagnostics got = row_count;
    missing := missing - got;
    exit when missing <= 0;
  end loop;
end $$;"""

# Summaries of blocks of 1,024 tasks (`lifecycle.storage.postgres.summary`).
SUMMARIES: Final = """
create table SCHEMA.summary(
  block bigint primary key,  -- its tasks are those whose `seq >> BLOCK_BITS` is this
  ticket bigint not null,    -- the attempt that makes it
  made boolean not null default false
);

create table SCHEMA.summary_part(
  queue int not null,
  name text collate "C" not null,   -- '=' and the name of a function; '': tasks of all functions
  state text collate "C" not null,
  block bigint not null,
  number bigint not null,
  latest float8,                    -- time of the latest enqueueing
  places bigint[],                  -- the numbers of the tasks; null: they are more than FEW
  primary key (queue, name, state, block)
);

create index summary_part_block on SCHEMA.summary_part(block);

GRANTS

-- A summary is deleted in the transaction that moves a task of its block. Only tasks that are not held are in
-- summaries: new tasks, and moves of running tasks, cost nothing. Claims forget the blocks of their tasks themselves,
-- with one statement for a batch.
create function SCHEMA.forget_blocks(numbers bigint[]) returns void language plpgsql as $$
declare
  blocks bigint[] := array(select distinct unnest(numbers) >> BLOCK_BITS);
begin
  delete from SCHEMA.summary where block = any(blocks);  -- waits for who is making a summary, and then sees its parts
  if found then
    delete from SCHEMA.summary_part where block = any(blocks);
  end if;
end $$;

create function SCHEMA.forget_block_of_task() returns trigger language plpgsql as $$
begin
  if exists (select from SCHEMA.summary where block = old.seq >> BLOCK_BITS) then
    perform SCHEMA.forget_blocks(array[old.seq]);
  end if;
  return null;
end $$;

create function SCHEMA.forget_blocks_of_gone() returns trigger language plpgsql as $$
begin
  if tg_op = 'TRUNCATE' then
    delete from SCHEMA.summary;
    delete from SCHEMA.summary_part;
  else
    perform SCHEMA.forget_blocks(array(select seq from gone));
  end if;
  return null;
end $$;

create trigger task_leaves_block after update of state, lease on SCHEMA.task for each row
when (old.lease is null and (new.lease is not null or new.state <> old.state) and new.state not in (RUNNING))
execute function SCHEMA.forget_block_of_task();

create trigger task_gone_from_block after delete on SCHEMA.task referencing old table as gone
for each statement execute function SCHEMA.forget_blocks_of_gone();

create trigger tasks_gone after truncate on SCHEMA.task
for each statement execute function SCHEMA.forget_blocks_of_gone();

-- The blocks that could have a summary, and have none, up to a number. The newest block gets none, as tasks are added.
create function SCHEMA.blocks_without_summary(up_to int) returns setof bigint language plpgsql stable as $$
declare
  held bigint[] := array(select distinct seq >> BLOCK_BITS from SCHEMA.task where lease is not null);
  newest bigint := (select seq >> BLOCK_BITS from SCHEMA.task order by seq desc limit 1);
  open_space record;
  place bigint;
  found_count int := 0;
begin
  for open_space in
    select low, high from (
      select s.block + 1 as low, lead(s.block, 1, newest) over (order by s.block) as high
      from (select block from SCHEMA.summary where made union all select -1) s
    ) spaces where low < high order by low
  loop
    place := open_space.low;
    loop
      place := (
        select seq >> BLOCK_BITS from SCHEMA.task
        where seq >= place << BLOCK_BITS and seq < open_space.high << BLOCK_BITS order by seq limit 1
      );
      exit when place is null;
      if place <> all(held) then
        return next place;
        found_count := found_count + 1;
        if found_count = up_to then return; end if;
      end if;
      place := place + 1;
    end loop;
  end loop;
end $$;

PAGE

-- The functions that claim tasks, with one more statement: they forget the blocks of the tasks.
"""
