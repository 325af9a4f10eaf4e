"""The part of the PostgreSQL schema for steps of workflows: SQL with names to fill in."""

from typing import Final

__all__ = ["WORKFLOWS"]

WORKFLOWS: Final = """
alter table SCHEMA.task add column step text;     -- place in a workflow, as JSON

alter table SCHEMA.task add column verdict text;  -- what has become of the tasks that it waits for

-- How many ends a task still waits for. A table of its own: the row of a task that waits for many is large.
create table SCHEMA.awaits(
  queue int not null references SCHEMA.queue(id), id text collate "C" not null, number bigint not null,
  primary key (id, queue)
);

GRANTS

-- The same constraint and triggers as before, with more states.
alter table SCHEMA.task drop constraint one_place;

alter table SCHEMA.task add constraint one_place check (num_nonnulls(lease, rank, due, ended) = 1 and case
  when state in (WAITING) then ended is null
  when state in (RUNNING) then lease is not null
  else ended is not null end) not valid;

drop trigger task_born on SCHEMA.task;

create trigger task_born before insert on SCHEMA.task for each row
when (new.state not in (BIRTHS)) execute function SCHEMA.refuse();

drop trigger task_moves on SCHEMA.task;

create trigger task_moves before update of state on SCHEMA.task for each row
when (old.state || '>' || new.state not in (STEPS)) execute function SCHEMA.refuse();

-- Count the ends of tasks for the tasks that wait for them, and store the verdicts that these lead to: see
-- `lifecycle.core.step`. In the order of the ids, so that no two transactions wait for each other here.
create function SCHEMA.report(
  which int, dependents text[], causes text[], completions boolean[], moments float8[]
) returns void language plpgsql as $$
declare
  told record;
  missing bigint;
  waiting record;
  decision text;
begin
  for told in
    select r.* from unnest(dependents, causes, completions, moments) with ordinality
    as r(dependent, cause, completed, moment, place) order by r.dependent, r.place
  loop
    if told.completed then
      update SCHEMA.awaits set number = number - 1 where id = told.dependent and queue = which
      returning number into missing;
      continue when not found or missing > 0;
    end if;
    delete from SCHEMA.awaits where id = told.dependent and queue = which;
    continue when not found;
    select seq, priority, step::json as step from SCHEMA.task
    where id = told.dependent and queue + 0 = which and state = 'PENDING_STATE' for update into waiting;
    continue when not found;
    decision := case when told.completed = (waiting.step->>3)::boolean then 'SKIP' else 'ENQUEUE' end;
    update SCHEMA.task t set verdict = decision || ' ' || told.moment || ' ' || told.cause,
      due = null, rank = case when t.lease is not null then null
        when decision = 'SKIP' or exists (
          select from SCHEMA.revocation r where r.key = told.dependent and r.queue = which and not r.function
          and (r.until is null or r.until > greatest(told.moment, t.eta))
        ) then REVOKED_RANK else t.priority end
    where t.seq = waiting.seq;
  end loop;
end $$;
"""
