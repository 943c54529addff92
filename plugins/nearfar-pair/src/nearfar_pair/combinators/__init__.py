"""Losses around another loss: its batch enlarged by a memory or by other ranks, turned round, or cut to widths."""
