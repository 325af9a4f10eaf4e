"""The types of workers: threads, processes, greenlets, an asyncio loop."""
