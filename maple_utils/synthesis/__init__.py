"""Instruction data by two recipes: who answers, what is asked, what is kept."""
