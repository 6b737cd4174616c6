//! What a gate is: definition, validation, selection, plan.
